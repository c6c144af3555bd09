// SPDX-License-Identifier: Apache-2.0

// Package provisioner makes PersistentVolumes for the claims of StorageClasses
// whose provisioner is Name: directories of the node it runs on. Every node runs
// one; package app wires it. It meets the binder, the scheduler and the node
// agent at the API only.
//
// A claim of a class that waits for its first consumer gets its volume on the
// node that the scheduler chose, any other claim on whichever node is first. The
// volume is bound to the node by its affinity. Its directory goes with the claim
// where the reclaim policy is Delete; it stays where that is Retain. A claim may
// grow at any time: its size is what was asked for, and nothing enforces it. All
// directories of a node share one file system.
//
// It never mounts anything, and never touches a path outside its root.
package provisioner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"kaji/internal/client"
)

// Name is what StorageClasses call this provisioner.
const Name = "kaji/local"

// Config says for which node volumes are made. Client, NodeName and Root are
// needed.
type Config struct {
	Client   client.Interface
	NodeName string
	// Root holds the directories of volumes. It is made, for root alone.
	Root   string
	Logger *slog.Logger
}

// Provisioner serves one node. Create it with New.
type Provisioner struct {
	cfg     Config
	log     *slog.Logger
	claims  client.Typed[*corev1.PersistentVolumeClaim]
	volumes client.Typed[*corev1.PersistentVolume]
	classes client.Typed[*storagev1.StorageClass]
	nodes   client.Typed[*corev1.Node]
	pending *pending
	trash   *pending
	told    map[string]string // what was last said of a claim; belongs to Run
}

// New returns a provisioner that does nothing before Run.
func New(cfg Config) (*Provisioner, error) {
	if cfg.Client == nil || cfg.NodeName == "" || !filepath.IsAbs(cfg.Root) {
		return nil, errors.New("provisioner: Client, NodeName and an absolute Root are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Root = filepath.Clean(cfg.Root)
	p := &Provisioner{cfg: cfg, log: cfg.Logger, pending: newPending(), trash: newPending(), told: map[string]string{},
		claims: client.For[*corev1.PersistentVolumeClaim](cfg.Client), volumes: client.For[*corev1.PersistentVolume](cfg.Client),
		classes: client.For[*storagev1.StorageClass](cfg.Client),
		nodes:   client.For[*corev1.Node](cfg.Client).With(client.InformerOptions{FieldSelector: "metadata.name=" + cfg.NodeName})}
	return p, nil
}

// Run serves claims until ctx ends.
func (p *Provisioner) Run(ctx context.Context) error {
	if err := os.MkdirAll(p.cfg.Root, 0o700); err != nil {
		return fmt.Errorf("make the directory of volumes: %w", err)
	}
	p.subscribe()
	p.cfg.Client.Start(ctx)
	if !client.WaitForSync(ctx, p.claims.Informer(), p.volumes.Informer(), p.classes.Informer(), p.nodes.Informer()) {
		return nil
	}
	logged := func(look func(context.Context, key) error) func(key) error {
		return func(k key) error {
			err := look(ctx, k)
			if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
				p.log.Warn("a volume could not be served, it is tried again", "namespace", k.namespace, "name", k.name, "err", err)
			}
			return err
		}
	}
	// Emptying a directory may take long: claims do not wait for it.
	var emptying sync.WaitGroup
	defer emptying.Wait()
	emptying.Go(func() { p.trash.run(ctx, logged(p.sweep)) })
	p.trash.add(key{}) // what an earlier process did not finish
	p.pending.run(ctx, logged(p.reconcile))
	return nil
}

func (p *Provisioner) subscribe() {
	claim := func(c *corev1.PersistentVolumeClaim) { p.pending.add(key{c.Namespace, c.Name}) }
	p.claims.AddHandler(client.Handler[*corev1.PersistentVolumeClaim]{Add: claim, Update: func(_, c *corev1.PersistentVolumeClaim) { claim(c) }})
	volume := func(v *corev1.PersistentVolume) {
		if v.Annotations[storagehelpers.AnnDynamicallyProvisioned] == Name {
			p.pending.add(key{"", v.Name})
		}
	}
	p.volumes.AddHandler(client.Handler[*corev1.PersistentVolume]{Add: volume, Update: func(_, v *corev1.PersistentVolume) { volume(v) }})
	all := func() {
		for _, c := range p.claims.CachedList("", nil) {
			if c.Spec.VolumeName == "" {
				claim(c)
			}
		}
	}
	p.classes.AddHandler(client.Handler[*storagev1.StorageClass]{Add: func(s *storagev1.StorageClass) {
		if s.Provisioner == Name {
			all()
		}
	}})
}

func (p *Provisioner) reconcile(ctx context.Context, k key) error {
	if k.namespace == "" {
		return p.reclaim(ctx, k.name)
	}
	return p.claim(ctx, k)
}

// path returns the directory of a volume; it is an error when that is not one
// of this provisioner's.
func (p *Provisioner) path(v *corev1.PersistentVolume) (string, error) {
	if v.Spec.Local == nil {
		return "", fmt.Errorf("volume %s is not a local one", v.Name)
	}
	dir := filepath.Clean(v.Spec.Local.Path)
	if base := filepath.Base(dir); filepath.Dir(dir) != p.cfg.Root || !strings.HasPrefix(base, "pvc-") {
		return "", fmt.Errorf("volume %s lies at %s, which is no volume of this node", v.Name, dir)
	}
	return dir, nil
}

// hostname is what the node's label, by which volumes are bound to it, says.
func (p *Provisioner) hostname() string {
	if n, err := p.nodes.Cached("", p.cfg.NodeName); err == nil && n.Labels[corev1.LabelHostname] != "" {
		return n.Labels[corev1.LabelHostname]
	}
	return p.cfg.NodeName
}

// here says whether a volume is one of this node's.
func (p *Provisioner) here(v *corev1.PersistentVolume) bool {
	if v.Annotations[storagehelpers.AnnDynamicallyProvisioned] != Name || v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return false
	}
	for _, term := range v.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == corev1.LabelHostname && len(e.Values) == 1 && e.Values[0] == p.hostname() {
				return true
			}
		}
	}
	return false
}

// tell writes an event about a claim, unless it was the last thing said of it.
// It is best effort.
func (p *Provisioner) tell(ctx context.Context, claim *corev1.PersistentVolumeClaim, kind, reason, message string) {
	id := string(claim.UID)
	if p.told[id] == reason+message {
		return
	}
	if len(p.told) >= remembered {
		clear(p.told)
	}
	p.told[id] = reason + message
	now := metav1.NewTime(time.Now())
	_, err := client.For[*corev1.Event](p.cfg.Client).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: fmt.Sprintf("%s.%x", claim.Name, now.UnixNano())},
		InvolvedObject: corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name,
			UID: claim.UID, ResourceVersion: claim.ResourceVersion},
		Type: kind, Reason: reason, Message: message, Source: corev1.EventSource{Component: Name, Host: p.cfg.NodeName},
		ReportingController: Name, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
	if err != nil {
		p.log.Warn("an event could not be written", "reason", reason, "err", err)
	}
}

// remembered bounds what is kept of events.
const remembered = 4096
