// SPDX-License-Identifier: Apache-2.0

// Package metricsapi answers metrics.k8s.io, what nodes and pods use, from the
// statistics of the kubelets, as the metrics server does. It asks them only when
// somebody asks it, and keeps what they say for a moment: a cluster that nobody
// measures pays nothing.
//
// The API server serves its resources where the kinds of package api/metrics are
// among its kinds. It stores nothing.
package metricsapi

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// Objects reads the present state; package object implements it.
type Objects interface {
	Fetch(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (api.Object, error)
	// Each visits the objects of a namespace until visit returns false.
	Each(ctx context.Context, gvk schema.GroupVersionKind, namespace string, visit func(api.Object) bool) error
}

// Config configures a Source. All but Logger are needed.
type Config struct {
	Objects Objects
	// Kubelet asks a node's kubelet for a path.
	Kubelet func(ctx context.Context, node, path string) (*http.Response, error)
	Logger  *slog.Logger
}

const (
	// keep is how long statistics are good for: the metrics server's resolution.
	keep = 15 * time.Second
	// old is when an earlier sample says nothing about the present any more.
	old = 90 * time.Second
	// pause is between two samples where there was none before. Kubelets keep a
	// reading for a second.
	pause = 1200 * time.Millisecond
	// patience bounds the wait for one kubelet.
	patience = 10 * time.Second
	// parallel is how many kubelets are asked at a time.
	parallel = 32
)

// Source answers the group's resources. It is safe for concurrent use.
type Source struct {
	cfg Config
	// turn holds one token: who has it may ask kubelets.
	turn chan struct{}

	mu    sync.Mutex
	asked time.Time            // guarded by mu
	nodes map[string]*measured // guarded by mu; the values do not change
}

// measured are two samples of a node.
type measured struct{ before, last *sample }

// New returns a Source.
func New(cfg Config) *Source {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{cfg: cfg, turn: make(chan struct{}, 1), nodes: map[string]*measured{}}
	s.turn <- struct{}{}
	return s
}

var (
	nodeKind = corev1.SchemeGroupVersion.WithKind("Node")
	podKind  = corev1.SchemeGroupVersion.WithKind("Pod")
)

// Nodes returns what nodes use: all, or that of the request's name.
func (s *Source) Nodes(ctx context.Context, in *request.Info) ([]api.Object, error) {
	nodes, err := s.find(ctx, nodeKind, in)
	if err != nil {
		return nil, err
	}
	stats, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.Object
	for _, n := range nodes {
		m := stats[n.GetName()]
		if m == nil {
			continue
		}
		u, ok := between(m.last.node, m.before.node)
		if !ok {
			continue
		}
		out = append(out, &metricsv1beta1.NodeMetrics{
			TypeMeta: typeMeta("NodeMetrics"), ObjectMeta: objectMeta(n),
			Timestamp: metav1.NewTime(u.at), Window: metav1.Duration{Duration: u.window}, Usage: u.list,
		})
	}
	return s.found(out, in, "nodemetrics", in.Name)
}

// Pods returns what pods use: all of the request's namespace, or that of its
// name.
func (s *Source) Pods(ctx context.Context, in *request.Info) ([]api.Object, error) {
	pods, err := s.find(ctx, podKind, in)
	if err != nil {
		return nil, err
	}
	stats, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.Object
	for _, o := range pods {
		pod := o.(*corev1.Pod)
		if m := stats[pod.Spec.NodeName]; m != nil && pod.Status.Phase == corev1.PodRunning {
			if metrics := m.pod(pod); metrics != nil {
				out = append(out, metrics)
			}
		}
	}
	return s.found(out, in, "podmetrics", in.Namespace+"/"+in.Name)
}

// find returns the objects that a request is about.
func (s *Source) find(ctx context.Context, kind schema.GroupVersionKind, in *request.Info) ([]api.Object, error) {
	if in.Verb == "get" {
		obj, err := s.cfg.Objects.Fetch(ctx, kind, in.Namespace, in.Name)
		return []api.Object{obj}, err
	}
	var out []api.Object
	err := s.cfg.Objects.Each(ctx, kind, in.Namespace, func(o api.Object) bool {
		out = append(out, o)
		return true
	})
	return out, err
}

// found says when there are no metrics of what a request names.
func (s *Source) found(out []api.Object, in *request.Info, resource, name string) ([]api.Object, error) {
	if in.Verb == "get" && len(out) == 0 {
		return nil, apierrors.NewNotFound(metricsv1beta1.Resource(resource), name)
	}
	return out, nil
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: metricsv1beta1.SchemeGroupVersion.String()}
}

func objectMeta(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace(), Labels: o.GetLabels(), CreationTimestamp: metav1.Now()}
}

// pod returns a pod's metrics; nil while something of them is missing.
func (m *measured) pod(pod *corev1.Pod) *metricsv1beta1.PodMetrics {
	at := podKey{pod.Namespace, pod.Name}
	containers := m.last.pods[at]
	if len(containers) == 0 {
		return nil
	}
	out := &metricsv1beta1.PodMetrics{TypeMeta: typeMeta("PodMetrics"), ObjectMeta: objectMeta(pod)}
	for _, name := range slices.Sorted(maps.Keys(containers)) {
		last := containers[name]
		if pod.Status.StartTime != nil && last.at.Before(pod.Status.StartTime.Time) {
			return nil // it is about an older pod of the name
		}
		u, ok := between(last, m.before.pods[at][name])
		if !ok {
			return nil
		}
		if out.Timestamp.IsZero() || u.at.Before(out.Timestamp.Time) {
			out.Timestamp, out.Window = metav1.NewTime(u.at), metav1.Duration{Duration: u.window}
		}
		out.Containers = append(out.Containers, metricsv1beta1.ContainerMetrics{Name: name, Usage: u.list})
	}
	return out
}

// now returns the statistics of all nodes that answer.
func (s *Source) now(ctx context.Context) (map[string]*measured, error) {
	if stats := s.kept(); stats != nil {
		return stats, nil
	}
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, apierrors.NewTimeoutError("the kubelets have not answered yet", 1)
	}
	if stats := s.kept(); stats != nil { // another asked meanwhile
		return stats, nil
	}
	var names []string
	err := s.cfg.Objects.Each(ctx, nodeKind, "", func(o api.Object) bool {
		names = append(names, o.GetName())
		return true
	})
	if err != nil {
		return nil, err
	}
	stats := s.measure(ctx, names)
	if err := ctx.Err(); err != nil {
		return nil, apierrors.NewTimeoutError("the kubelets have not answered in time", 1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes, s.asked = stats, time.Now()
	return stats, nil
}

func (s *Source) kept() map[string]*measured {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.IsZero() || time.Since(s.asked) > keep {
		return nil
	}
	return s.nodes
}

// measure asks all nodes, several at a time.
func (s *Source) measure(ctx context.Context, names []string) map[string]*measured {
	s.mu.Lock()
	previous := s.nodes
	s.mu.Unlock()
	out := map[string]*measured{}
	var mu sync.Mutex // guards out
	var group sync.WaitGroup
	room := make(chan struct{}, parallel)
	for _, name := range names {
		room <- struct{}{}
		group.Go(func() {
			defer func() { <-room }()
			m, err := s.node(ctx, name, previous[name])
			if err != nil {
				s.cfg.Logger.Warn("a kubelet does not say what its node uses", "node", name, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = m
		})
	}
	group.Wait()
	return out
}

// node asks one node: twice, where no earlier sample is recent enough.
func (s *Source) node(ctx context.Context, name string, previous *measured) (*measured, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last, err := s.ask(ctx, name)
	if err != nil {
		return nil, err
	}
	if previous != nil && last.node.at.Sub(previous.last.node.at) < old {
		return &measured{before: previous.last, last: last}, nil
	}
	before := last
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if last, err = s.ask(ctx, name); err != nil {
		return nil, err
	}
	return &measured{before: before, last: last}, nil
}
