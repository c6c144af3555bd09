// SPDX-License-Identifier: Apache-2.0

// Package payload gives pods files with content from the API server: configMap,
// secret, downwardAPI and projected volumes. All files of a volume change at
// once: they lie behind one symbolic link that is replaced (writer.go), and
// containers see either the old or the new content.
package payload

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/kubelet/compose"
	"kaji/internal/kubelet/volume"
)

// Config is what the drivers need.
type Config struct {
	Mounter volume.Mounter
	Objects compose.Objects
	// Tokens issues service account tokens for pods.
	Tokens func(ctx context.Context, pod *corev1.Pod, spec *corev1.ServiceAccountTokenProjection) (string, error)
	// TrustBundle returns the certificates of a ClusterTrustBundle projection.
	TrustBundle func(spec *corev1.ClusterTrustBundleProjection) ([]byte, error)
	// Certificate returns key and certificate chain of a pod certificate projection.
	Certificate func(ctx context.Context, pod *corev1.Pod, volume string, index int, spec *corev1.PodCertificateProjection) (key, chain []byte, err error)
	// Facts are what the downward API tells of the node.
	Facts  func(pod *corev1.Pod) compose.Facts
	Logger *slog.Logger
}

// file is one file of a volume.
type file struct {
	data []byte
	mode int32
	// uid owns the file where it is not root; nil for root.
	uid *int64
}

// Drivers returns the drivers of the four kinds.
func Drivers(cfg Config) []volume.Driver {
	return []volume.Driver{
		&driver{cfg: cfg, name: "kubernetes.io/configmap", memory: false, of: func(v *corev1.Volume) *corev1.ProjectedVolumeSource {
			c := v.ConfigMap
			if c == nil {
				return nil
			}
			return one(c.DefaultMode, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: c.LocalObjectReference, Items: c.Items, Optional: c.Optional}})
		}},
		&driver{cfg: cfg, name: "kubernetes.io/secret", memory: true, of: func(v *corev1.Volume) *corev1.ProjectedVolumeSource {
			s := v.Secret
			if s == nil {
				return nil
			}
			return one(s.DefaultMode, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: s.SecretName}, Items: s.Items, Optional: s.Optional}})
		}},
		&driver{cfg: cfg, name: "kubernetes.io/downward-api", memory: true, of: func(v *corev1.Volume) *corev1.ProjectedVolumeSource {
			d := v.DownwardAPI
			if d == nil {
				return nil
			}
			return one(d.DefaultMode, corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: d.Items}})
		}},
		&driver{cfg: cfg, name: "kubernetes.io/projected", memory: true, of: func(v *corev1.Volume) *corev1.ProjectedVolumeSource { return v.Projected }},
	}
}

func one(mode *int32, p corev1.VolumeProjection) *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: []corev1.VolumeProjection{p}}
}

// driver does one kind; all kinds are projections of one or more sources.
type driver struct {
	cfg    Config
	name   string
	memory bool
	of     func(*corev1.Volume) *corev1.ProjectedVolumeSource
}

var _ volume.Driver = (*driver)(nil)

// Name implements volume.Driver.
func (d *driver) Name() string { return d.name }

// Handles implements volume.Driver.
func (d *driver) Handles(s volume.Source) bool { return s.Persistent == nil && d.of(s.Volume) != nil }

// Setup implements volume.Driver.
func (d *driver) Setup(ctx context.Context, r volume.Request) (volume.Mounted, error) {
	mounted := volume.Mounted{Path: r.Dir, ReadOnly: true}
	files, err := d.collect(ctx, r, d.of(r.Source.Volume))
	if err != nil {
		return mounted, err
	}
	if err := os.MkdirAll(r.Dir, 0o777); err != nil {
		return mounted, fmt.Errorf("make the directory: %w", err)
	}
	if d.memory {
		ok, err := d.cfg.Mounter.Mounted(r.Dir)
		if err == nil && !ok {
			err = d.cfg.Mounter.Tmpfs(r.Dir, 0)
		}
		if err != nil {
			return mounted, err
		}
	}
	if !d.memory { // a tmpfs has its mode
		if err := os.Chmod(r.Dir, 0o777); err != nil {
			return mounted, fmt.Errorf("make the directory: %w", err)
		}
	}
	return mounted, write(r.Dir, files, r.FSGroup)
}

// Teardown implements volume.Driver.
func (d *driver) Teardown(_ context.Context, dir, _, _ string) error {
	if err := d.cfg.Mounter.Unmount(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (d *driver) collect(ctx context.Context, r volume.Request, p *corev1.ProjectedVolumeSource) (map[string]file, error) {
	mode := int32(0o644)
	if p.DefaultMode != nil {
		mode = *p.DefaultMode
	}
	files := map[string]file{}
	add := func(path string, f file) error {
		clean := filepath.Clean(path)
		if path == "" || filepath.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(clean, "..data") {
			return fmt.Errorf("invalid path: %q", path)
		}
		files[clean] = f
		return nil
	}
	for i, source := range p.Sources {
		var err error
		switch {
		case source.ConfigMap != nil:
			err = d.configMap(r.Pod.Namespace, source.ConfigMap, mode, add)
		case source.Secret != nil:
			err = d.secret(r.Pod.Namespace, source.Secret, mode, add)
		case source.DownwardAPI != nil:
			err = d.downward(r.Pod, source.DownwardAPI, mode, add)
		case source.ServiceAccountToken != nil:
			err = d.token(ctx, r, source.ServiceAccountToken, mode, add)
		case source.ClusterTrustBundle != nil && d.cfg.TrustBundle != nil:
			var bundle []byte
			if bundle, err = d.cfg.TrustBundle(source.ClusterTrustBundle); err == nil {
				f := file{data: bundle, mode: mode}
				private(r, &f)
				err = add(source.ClusterTrustBundle.Path, f)
			}
		case source.PodCertificate != nil && d.cfg.Certificate != nil:
			err = d.certificate(ctx, r, i, source.PodCertificate, mode, add)
		default:
			err = fmt.Errorf("source %d of projected volume %q is of a kind that this node does not have", i, r.Source.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

type adder func(path string, f file) error

// items picks keys of an object; without items all keys become files.
func items(object string, wanted []corev1.KeyToPath, data map[string][]byte, mode int32, optional bool, add adder) error {
	if len(wanted) == 0 {
		for key, content := range data {
			if err := add(key, file{data: content, mode: mode}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range wanted {
		content, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			if object == "config" {
				return fmt.Errorf("configmap references non-existent config key: %s", item.Key)
			}
			return fmt.Errorf("references non-existent %s key: %s", object, item.Key)
		}
		m := mode
		if item.Mode != nil {
			m = *item.Mode
		}
		if err := add(item.Path, file{data: content, mode: m}); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) configMap(namespace string, p *corev1.ConfigMapProjection, mode int32, add adder) error {
	optional := p.Optional != nil && *p.Optional
	cm, err := d.cfg.Objects.ConfigMap(namespace, p.Name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return items("config", p.Items, data, mode, optional, add)
}

func (d *driver) secret(namespace string, p *corev1.SecretProjection, mode int32, add adder) error {
	optional := p.Optional != nil && *p.Optional
	secret, err := d.cfg.Objects.Secret(namespace, p.Name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional {
			return nil
		}
		return err
	}
	return items("secret", p.Items, secret.Data, mode, optional, add)
}

func (d *driver) downward(pod *corev1.Pod, p *corev1.DownwardAPIProjection, mode int32, add adder) error {
	facts := d.cfg.Facts(pod)
	for _, item := range p.Items {
		m := mode
		if item.Mode != nil {
			m = *item.Mode
		}
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = compose.Field(pod, item.FieldRef.FieldPath, facts)
		case item.ResourceFieldRef != nil:
			value, err = d.resource(pod, item.ResourceFieldRef, facts)
		}
		if err == nil {
			err = add(item.Path, file{data: []byte(value), mode: m})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) resource(pod *corev1.Pod, ref *corev1.ResourceFieldSelector, facts compose.Facts) (string, error) {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == ref.ContainerName }); i >= 0 {
			return compose.ResourceOf(ref, pod, &list[i], facts)
		}
	}
	return "", fmt.Errorf("container %s not found", ref.ContainerName)
}

func (d *driver) token(ctx context.Context, r volume.Request, p *corev1.ServiceAccountTokenProjection, mode int32, add adder) error {
	token, err := d.cfg.Tokens(ctx, r.Pod, p)
	if err != nil {
		return fmt.Errorf("failed to fetch token: %w", err)
	}
	f := file{data: []byte(token), mode: mode}
	private(r, &f)
	return add(p.Path, f)
}

// private keeps a credential to the one user that runs in the pod, and to its
// group, whatever mode the volume has.
func private(r volume.Request, f *file) {
	f.uid = onlyUser(r.Pod)
	if f.uid != nil || r.FSGroup != nil {
		f.mode = 0o600
	}
}

func (d *driver) certificate(ctx context.Context, r volume.Request, index int, p *corev1.PodCertificateProjection, mode int32, add adder) error {
	key, chain, err := d.cfg.Certificate(ctx, r.Pod, r.Source.Name, index, p)
	if err != nil {
		return err
	}
	put := func(path string, data []byte) error {
		if path == "" {
			return nil
		}
		f := file{data: data, mode: mode}
		private(r, &f)
		return add(path, f)
	}
	if err := put(p.CredentialBundlePath, slices.Concat(key, chain)); err != nil {
		return err
	}
	if err := put(p.KeyPath, key); err != nil {
		return err
	}
	return put(p.CertificateChainPath, chain)
}

// onlyUser is the user that all containers of a pod run as, nil where they
// differ or do not say.
func onlyUser(pod *corev1.Pod) *int64 {
	var only *int64
	same := true
	see := func(c *corev1.Container) {
		var uid *int64
		if s := pod.Spec.SecurityContext; s != nil {
			uid = s.RunAsUser
		}
		if s := c.SecurityContext; s != nil && s.RunAsUser != nil {
			uid = s.RunAsUser
		}
		if uid == nil || only != nil && *only != *uid {
			same = false
			return
		}
		only = uid
	}
	for i := range pod.Spec.InitContainers {
		see(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		see(&pod.Spec.Containers[i])
	}
	if !same {
		return nil
	}
	return only
}
