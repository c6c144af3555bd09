// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/client"
)

// verdict is the condition of an APIService, but for its times. retry says that
// the server may answer at any moment without anything else changing.
type verdict struct {
	status          apiregistrationv1.ConditionStatus
	reason, message string
	retry           bool
}

func unavailable(reason, format string, args ...any) verdict {
	return verdict{status: apiregistrationv1.ConditionFalse, reason: reason, message: fmt.Sprintf(format, args...)}
}

// look looks at one server: whether it can be reached, and when it is time also
// at what it serves. It is true when that is to be tried again soon.
func (a *Aggregator) look(ctx context.Context, name string) bool {
	entry, found, err := a.cfg.Cache.Get(ctx, a.cfg.Kind, "", name)
	if err != nil || !found {
		return err != nil
	}
	s := entry.Object.(*apiregistrationv1.APIService)
	r := (*a.remotes.Load())[versionOf(s)]
	if s.Spec.Service == nil || r == nil || r.uid != s.UID {
		return false // the loop comes to it
	}
	v := a.judge(ctx, r)
	if ctx.Err() != nil {
		return false
	}
	next := *r.known()
	next.available = v.status == apiregistrationv1.ConditionTrue
	missing := false
	switch {
	case !next.available:
		next.document, next.learned, next.discoveryTag = r.stale(), time.Time{}, ""
	case time.Since(next.learned) >= relearn:
		missing = r.learn(ctx, &next)
	}
	if !sameToClients(r.knowledge.Swap(&next), &next) {
		a.generation.Add(1)
	}
	return !a.writeCondition(ctx, s, v) || v.retry || missing
}

func sameToClients(a, b *knowledge) bool {
	return a.indexTag == b.indexTag && a.v2.etag == b.v2.etag && equality.Semantic.DeepEqual(a.index, b.index) &&
		equality.Semantic.DeepEqual(a.document, b.document)
}

// judge finds out whether a server can be reached.
func (a *Aggregator) judge(ctx context.Context, r *remote) verdict {
	ref := r.spec.Service
	entry, found, err := a.cfg.Cache.Get(ctx, a.cfg.Service, ref.Namespace, ref.Name)
	switch {
	case err != nil:
		v := unavailable("ServiceAccessError", "service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, err)
		v.status, v.retry = apiregistrationv1.ConditionUnknown, true
		return v
	case !found:
		return unavailable("ServiceNotFound", "service/%s in %q is not present", ref.Name, ref.Namespace)
	}
	service := entry.Object.(*corev1.Service)
	if service.Spec.Type == corev1.ServiceTypeClusterIP {
		if v := a.judgeService(ctx, r, service); v.status != apiregistrationv1.ConditionTrue {
			return v
		}
	}
	err = r.broken
	if err == nil {
		err = r.reach(ctx)
	}
	if err != nil {
		v := unavailable("FailedDiscoveryCheck", "%v", err)
		v.retry = true
		return v
	}
	return verdict{status: apiregistrationv1.ConditionTrue, reason: "Passed", message: "all checks passed"}
}

// judgeService finds out whether a Service leads anywhere.
func (a *Aggregator) judgeService(ctx context.Context, r *remote, service *corev1.Service) verdict {
	ref := r.spec.Service
	at := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == r.port })
	if at < 0 {
		return unavailable("ServicePortError", "service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, r.port)
	}
	if a.cfg.Slices == nil {
		return verdict{status: apiregistrationv1.ConditionTrue}
	}
	snapshot, err := a.cfg.Cache.Snapshot(ctx, a.cfg.Slices)
	if err != nil {
		v := unavailable("EndpointsAccessError", "service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, err)
		v.status, v.retry = apiregistrationv1.ConditionUnknown, true
		return v
	}
	port, some, usable := service.Spec.Ports[at].Name, false, false
	for e := range snapshot.All(ref.Namespace, "") {
		if s := e.Object.(*discoveryv1.EndpointSlice); s.Labels[discoveryv1.LabelServiceName] == ref.Name {
			some, usable = true, usable || leads(s, port)
		}
	}
	switch {
	case !some:
		return unavailable("EndpointsNotFound", "cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace)
	case !usable:
		return unavailable("MissingEndpoints", "endpointslices for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, port)
	}
	return verdict{status: apiregistrationv1.ConditionTrue}
}

// leads says whether an EndpointSlice has a ready endpoint and the port.
func leads(s *discoveryv1.EndpointSlice, port string) bool {
	return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }) &&
		slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == port && p.Port != nil })
}

// attempts is how often a server is asked before it is called unavailable: one
// of several endpoints may be.
const attempts = 5

// reach asks the server for what it must serve.
func (r *remote) reach(ctx context.Context) error {
	first := r.reachOnce(ctx)
	if first == nil {
		return nil
	}
	r.transport.CloseIdleConnections()
	results := make(chan error, attempts-1)
	for range attempts - 1 {
		go func() { results <- r.reachOnce(ctx) }()
	}
	var last error
	for range attempts - 1 {
		if err := <-results; err == nil {
			first = nil
		} else {
			last = err
		}
	}
	if first == nil {
		return nil
	}
	return last
}

func (r *remote) reachOnce(ctx context.Context) error {
	base, err := r.resolve()
	if err != nil {
		return err
	}
	target := base.JoinPath("apis", r.gv.Group, r.gv.Version)
	answer, err := r.get(ctx, target, "application/json", "", aggregatorUser)
	if err == nil {
		answer.Body.Close()
		if answer.StatusCode < 200 || answer.StatusCode > 299 {
			err = fmt.Errorf("bad status from %v: %d", target, answer.StatusCode)
		}
	}
	if err != nil {
		return fmt.Errorf("failing or missing response from %v: %w", target, err)
	}
	return nil
}

// Who the server is asked by: everything may be done by the one that looks
// whether it is there.
var (
	aggregatorUser = &user.DefaultInfo{Name: "system:kube-aggregator", Groups: []string{user.SystemPrivilegedGroup}}
	schemaUser     = &user.DefaultInfo{Name: "system:aggregator"}
)

// writeCondition stores the condition of an APIService when it changed. It is
// false when that failed.
func (a *Aggregator) writeCondition(ctx context.Context, s *apiregistrationv1.APIService, v verdict) bool {
	c := apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: v.status, Reason: v.reason, Message: v.message, LastTransitionTime: metav1.Now(),
	}
	s = s.DeepCopy()
	was := apiregistrationv1.ConditionUnknown
	if i := slices.IndexFunc(s.Status.Conditions, func(o apiregistrationv1.APIServiceCondition) bool { return o.Type == c.Type }); i < 0 {
		s.Status.Conditions = append(s.Status.Conditions, c)
	} else {
		old := &s.Status.Conditions[i]
		was = old.Status
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		if *old == c {
			return true
		}
		*old = c
	}
	status := client.Resource{GroupVersionResource: resource.GroupVersionResource, Subresource: "status"}
	_, err := a.cfg.Client.Update(ctx, status, s.Name, s, metav1.UpdateOptions{FieldManager: "kube-apiserver"})
	switch {
	case err == nil:
		if was == apiregistrationv1.ConditionTrue && v.status != was {
			a.metrics.unavailable.WithLabelValues(s.Name, v.reason).Inc()
		}
		return true
	case ctx.Err() != nil || apierrors.IsNotFound(err):
		return true
	case !apierrors.IsConflict(err): // else the newer one is looked at
		a.log.Error("cannot write the condition of an APIService", "name", s.Name, "err", err)
	}
	return false
}

// timeout bounds every question the server is asked.
const timeout = 5 * time.Second
