// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/client/remote"
)

const (
	// scarce is how little of a disk is left when status warns.
	scarce = 0.10
	// recent is how far back status looks for warnings; it shows the newest few.
	recent = time.Hour
	shown  = 3
)

// rower adds a line to a table.
type rower func(name, format string, args ...any)

// sizes says what of the data directory takes how much.
func (c Cluster) sizes() string {
	var parts []string
	for _, p := range []struct{ what, dir string }{{"store", c.Dir.Store()}, {"images and containers", c.Dir.Runtime()}, {"volumes", c.Dir.Volumes()}, {"logs of pods", c.Dir.PodLogs()}} {
		parts = append(parts, p.what+" "+size(p.dir))
	}
	return size(string(c.Dir)) + ": " + strings.Join(parts, ", ")
}

// disk says what is left where the data are.
func (c Cluster) disk() string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(string(c.Dir), &st); err != nil {
		return err.Error()
	}
	return left(st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize))
}

func left(free, all uint64) string {
	text := fmt.Sprintf("%.1f of %.1f GiB free", float64(free)/(1<<30), float64(all)/(1<<30))
	if float64(free) < scarce*float64(all) {
		text += "; WARNING: pods are evicted when less than 5 percent are free"
	}
	return text
}

// inventory prints what the API knows: addresses, pods and recent warnings. What
// cannot be read is said in its place.
func (c Cluster) inventory(ctx context.Context, row rower) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	conn, err := remote.New(config)
	if err != nil {
		return err
	}
	return inventory(ctx, conn, row)
}

func inventory(ctx context.Context, api client.Interface, row rower) error {
	if m, err := client.For[*corev1.ConfigMap](api).Get(ctx, "kube-system", "kaji-network"); err == nil {
		row("network", "pods %s, name server %s for %s", m.Data["podCIDRs"], m.Data["dns"], m.Data["domain"])
		if off := m.Data["off"]; off != "" {
			row("left out", "%s", off)
		}
	}
	pods, err := client.For[*corev1.Pod](api).List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return err
	}
	row("pods", "%s", count(pods))
	services, err := client.For[*corev1.Service](api).List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, s := range services {
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			row("load balancer", "%s/%s, %s", s.Namespace, s.Name, reached(s))
		}
	}
	return warnings(ctx, api, row)
}

// count says how many pods there are, and which are not as they should be.
func count(pods []*corev1.Pod) string {
	var running int
	var others []string
	for _, p := range pods {
		switch {
		case p.Status.Phase == corev1.PodSucceeded:
		case p.Status.Phase == corev1.PodRunning && podReady(p):
			running++
		default:
			others = append(others, p.Namespace+"/"+p.Name)
		}
	}
	text := fmt.Sprintf("%d, %d of them ready", len(pods), running)
	if len(others) == 0 {
		return text
	}
	slices.Sort(others)
	more := ""
	if len(others) > shown {
		more = fmt.Sprintf(" and %d more", len(others)-shown)
	}
	return text + "; not ready: " + strings.Join(others[:min(shown, len(others))], ", ") + more
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func reached(s *corev1.Service) string {
	var at []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		for _, p := range s.Spec.Ports {
			at = append(at, fmt.Sprintf("%s:%d", cmp.Or(in.IP, in.Hostname), p.Port))
		}
	}
	if len(at) == 0 {
		return "WARNING: it has no address; `kubectl describe service` says why"
	}
	return strings.Join(at, " ")
}

// warnings prints the newest events of that kind.
func warnings(ctx context.Context, api client.Interface, row rower) error {
	events, err := client.For[*corev1.Event](api).List(ctx, "", metav1.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		return err
	}
	events = slices.DeleteFunc(events, func(e *corev1.Event) bool { return time.Since(happened(e)) > recent })
	slices.SortFunc(events, func(a, b *corev1.Event) int { return happened(b).Compare(happened(a)) })
	for _, e := range events[:min(shown, len(events))] {
		where := e.InvolvedObject.Name
		if e.InvolvedObject.Namespace != "" {
			where = e.InvolvedObject.Namespace + "/" + where
		}
		text, _, _ := strings.Cut(e.Message, "\n")
		row("warning", "%s %s: %s: %s", strings.ToLower(e.InvolvedObject.Kind), where, e.Reason, text)
	}
	if more := len(events) - shown; more > 0 {
		row("warning", "%d more in the last hour; `kubectl get events -A` shows them", more)
	}
	return nil
}

// happened is when an event was last seen, by whichever field tells.
func happened(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}
