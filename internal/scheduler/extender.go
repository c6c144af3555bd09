// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/rest"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// extender is a webhook that takes part in decisions.
type extender struct {
	cfg     configv1.Extender
	client  *http.Client
	managed sets.Set[string]
}

// extenderName stands for all extenders among those that rejected a pod, which
// any event lets try again.
const extenderName = "Extender"

// extenderAnswerLimit bounds an extender's answer: names of 100,000 nodes, and
// whole nodes of the clusters that send those.
const extenderAnswerLimit = 256 << 20

func newExtenders(list []configv1.Extender, log *slog.Logger) ([]*extender, error) {
	var out, ignorable []*extender
	for i := range list {
		e := &extender{cfg: list[i], managed: sets.New[string]()}
		for _, r := range list[i].ManagedResources {
			e.managed.Insert(r.Name)
		}
		cfg := &rest.Config{Timeout: list[i].HTTPTimeout.Duration}
		if t := list[i].TLSConfig; t != nil {
			cfg.TLSClientConfig = rest.TLSClientConfig{
				Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile,
				CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData,
			}
		} else if list[i].EnableHTTPS {
			cfg.TLSClientConfig.Insecure = true
		}
		transport, err := rest.TransportFor(cfg)
		if err != nil {
			return nil, fmt.Errorf("extender %s: %w", list[i].URLPrefix, err)
		}
		e.client = &http.Client{Transport: transport, Timeout: cfg.Timeout}
		log.Info("extender configured", "url", list[i].URLPrefix)
		// Ignorable ones come last, so that they see fewer nodes.
		if e.Ignorable() {
			ignorable = append(ignorable, e)
		} else {
			out = append(out, e)
		}
	}
	return append(out, ignorable...), nil
}

// ignoredResources are those that only extenders look at.
func ignoredResources(list []configv1.Extender) sets.Set[string] {
	ignored := sets.New[string]()
	for i := range list {
		for _, r := range list[i].ManagedResources {
			if r.IgnoredByScheduler {
				ignored.Insert(r.Name)
			}
		}
	}
	return ignored
}

// Name implements plugin.Extender.
func (e *extender) Name() string { return e.cfg.URLPrefix }

// Ignorable implements plugin.Extender.
func (e *extender) Ignorable() bool { return e.cfg.Ignorable }

// SupportsPreemption implements plugin.Extender.
func (e *extender) SupportsPreemption() bool { return e.cfg.PreemptVerb != "" }

func (e *extender) binds() bool { return e.cfg.BindVerb != "" }

// IsInterested implements plugin.Extender.
func (e *extender) IsInterested(pod *corev1.Pod) bool {
	if e.managed.Len() == 0 {
		return true
	}
	uses := func(list []corev1.Container) bool {
		for i := range list {
			for name := range list[i].Resources.Requests {
				if e.managed.Has(string(name)) {
					return true
				}
			}
			for name := range list[i].Resources.Limits {
				if e.managed.Has(string(name)) {
					return true
				}
			}
		}
		return false
	}
	return uses(pod.Spec.Containers) || uses(pod.Spec.InitContainers)
}

// filter narrows nodes, and says why the others were refused.
func (e *extender) filter(ctx context.Context, pod *corev1.Pod, nodes []*snapshot.Node) ([]*snapshot.Node, map[*snapshot.Node]*plugin.Status, error) {
	if e.cfg.FilterVerb == "" {
		return nodes, nil, nil
	}
	byName := make(map[string]*snapshot.Node, len(nodes))
	for _, n := range nodes {
		byName[n.Name] = n
	}
	var result extenderv1.ExtenderFilterResult
	if err := e.send(ctx, e.cfg.FilterVerb, e.args(pod, nodes), &result); err != nil {
		return nil, nil, err
	}
	if result.Error != "" {
		return nil, nil, errors.New(result.Error)
	}
	var kept []*snapshot.Node
	keep := func(name string) error {
		n := byName[name]
		if n == nil {
			return fmt.Errorf("extender %q claims a filtered node %q which is not found in the input node list", e.cfg.URLPrefix, name)
		}
		kept = append(kept, n)
		return nil
	}
	if e.cfg.NodeCacheCapable && result.NodeNames != nil {
		for _, name := range *result.NodeNames {
			if err := keep(name); err != nil {
				return nil, nil, err
			}
		}
	} else if result.Nodes != nil {
		for i := range result.Nodes.Items {
			if err := keep(result.Nodes.Items[i].Name); err != nil {
				return nil, nil, err
			}
		}
	}
	failed := map[*snapshot.Node]*plugin.Status{}
	for name, reason := range result.FailedNodes {
		if n := byName[name]; n != nil {
			failed[n] = plugin.NewStatus(e.Name(), plugin.Unschedulable, reason)
		}
	}
	for name, reason := range result.FailedAndUnresolvableNodes {
		if n := byName[name]; n != nil {
			failed[n] = plugin.NewStatus(e.Name(), plugin.UnschedulableAndUnresolvable, reason)
		}
	}
	return kept, failed, nil
}

func (e *extender) args(pod *corev1.Pod, nodes []*snapshot.Node) *extenderv1.ExtenderArgs {
	args := &extenderv1.ExtenderArgs{Pod: pod}
	if e.cfg.NodeCacheCapable {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.Name
		}
		args.NodeNames = &names
		return args
	}
	args.Nodes = &corev1.NodeList{Items: make([]corev1.Node, len(nodes))}
	for i, n := range nodes {
		args.Nodes.Items[i] = *n.Object
	}
	return args
}

// prioritize adds the extender's scores to totals. Its failure is logged and
// costs its opinion only.
func (e *extender) prioritize(ctx context.Context, pod *corev1.Pod, nodes []*snapshot.Node, totals []int64, log *slog.Logger) {
	if e.cfg.PrioritizeVerb == "" || !e.IsInterested(pod) {
		return
	}
	var result extenderv1.HostPriorityList
	if err := e.send(ctx, e.cfg.PrioritizeVerb, e.args(pod, nodes), &result); err != nil {
		log.Error("extender did not prioritize", "extender", e.Name(), "err", err)
		return
	}
	scores := make(map[string]int64, len(result))
	for _, h := range result {
		scores[h.Host] += h.Score
	}
	for i, n := range nodes {
		// Extenders score up to 10, plugins up to 100.
		totals[i] += scores[n.Name] * e.cfg.Weight * (plugin.MaxScore / extenderv1.MaxExtenderPriority)
	}
}

func (e *extender) bind(ctx context.Context, pod *corev1.Pod, node string) error {
	var result extenderv1.ExtenderBindingResult
	err := e.send(ctx, e.cfg.BindVerb, &extenderv1.ExtenderBindingArgs{
		PodName: pod.Name, PodNamespace: pod.Namespace, PodUID: pod.UID, Node: node,
	}, &result)
	if err == nil && result.Error != "" {
		err = errors.New(result.Error)
	}
	return err
}

// ProcessPreemption implements plugin.Extender.
func (e *extender) ProcessPreemption(ctx context.Context, pod *corev1.Pod, victims map[string]*plugin.Victims) (map[string]*plugin.Victims, error) {
	args := &extenderv1.ExtenderPreemptionArgs{Pod: pod}
	byUID := map[string]*corev1.Pod{}
	for node, v := range victims {
		meta := &extenderv1.MetaVictims{NumPDBViolations: v.NumPDBViolations}
		for _, p := range v.Pods {
			byUID[string(p.UID)] = p
			meta.Pods = append(meta.Pods, &extenderv1.MetaPod{UID: string(p.UID)})
		}
		if e.cfg.NodeCacheCapable {
			if args.NodeNameToMetaVictims == nil {
				args.NodeNameToMetaVictims = map[string]*extenderv1.MetaVictims{}
			}
			args.NodeNameToMetaVictims[node] = meta
		} else {
			if args.NodeNameToVictims == nil {
				args.NodeNameToVictims = map[string]*extenderv1.Victims{}
			}
			args.NodeNameToVictims[node] = &extenderv1.Victims{Pods: v.Pods, NumPDBViolations: v.NumPDBViolations}
		}
	}
	var result extenderv1.ExtenderPreemptionResult
	if err := e.send(ctx, e.cfg.PreemptVerb, args, &result); err != nil {
		return nil, err
	}
	out := map[string]*plugin.Victims{}
	for node, meta := range result.NodeNameToMetaVictims {
		if victims[node] == nil {
			return nil, fmt.Errorf("extender %q claims a node %q that was no candidate", e.Name(), node)
		}
		v := &plugin.Victims{NumPDBViolations: meta.NumPDBViolations}
		for _, m := range meta.Pods {
			p := byUID[m.UID]
			if p == nil {
				return nil, fmt.Errorf("extender: %v claims to preempt pod (UID: %v) on node: %v, but the pod is not found on that node", e.Name(), m.UID, node)
			}
			v.Pods = append(v.Pods, p)
		}
		out[node] = v
	}
	return out, nil
}

func (e *extender) send(ctx context.Context, verb string, args, result any) error {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	url := strings.TrimRight(e.cfg.URLPrefix, "/") + "/" + verb
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %v with extender at URL %v, code %v", verb, e.cfg.URLPrefix, resp.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, extenderAnswerLimit)).Decode(result)
}
