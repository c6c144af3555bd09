// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/always"
	"kaji/internal/apiserver/admission/dynamic"
	"kaji/internal/apiserver/admission/resourcequota"
	"kaji/internal/apiserver/aggregate"
	"kaji/internal/apiserver/crd"
	"kaji/internal/apiserver/discovery"
	"kaji/internal/apiserver/flow"
	"kaji/internal/apiserver/metricsapi"
	"kaji/internal/apiserver/openapi"
	"kaji/internal/apiserver/proxy"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/resolve"
	"kaji/internal/apiserver/verb"
)

// last are the plug-ins that come after those users define: one counts what
// nothing refuses any more, the other refuses everything.
var last = []string{resourcequota.Name, always.DenyName}

// withDynamic adds the plug-ins that users define to the others.
func (s *Server) withDynamic(chain []admission.Plugin) []admission.Plugin {
	cfg := dynamic.Config{
		Cache: s.cache, Kinds: s.kinds, Client: s.self, Schemas: s.openapi,
		Authorizer: s.authorizer(), Disabled: s.cfg.DisabledAdmission,
		Configurations: s.cfg.AdmissionConfiguration,
		Reinvoke:       chain, Logger: s.log,
	}
	if services := s.kinds.Kind(corev1.SchemeGroupVersion.WithKind("Service")); services != nil {
		cfg.Services = s.resolver(services)
	}
	s.dynamic = dynamic.New(cfg)
	at := slices.IndexFunc(chain, func(p admission.Plugin) bool { return slices.Contains(last, p.Name()) })
	if at < 0 {
		at = len(chain)
	}
	return slices.Insert(slices.Clone(chain), at, admission.Plugin(s.dynamic.Mutator()), admission.Plugin(s.dynamic.Validator()))
}

// resolver finds where Services answer.
func (s *Server) resolver(services *request.Served) *resolve.Services {
	r := &resolve.Services{Cache: s.cache, Kind: services.Kind}
	if slices := s.kinds.Kind(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice")); slices != nil && s.cfg.RouteToEndpoints {
		r.Slices = slices.Kind
	}
	return r
}

// newAggregate returns what sends requests to other API servers, nil where
// APIServices are not served.
func (s *Server) newAggregate() *aggregate.Aggregator {
	services := s.kinds.Kind(corev1.SchemeGroupVersion.WithKind("Service"))
	own := s.kinds.Kind(apiregistrationv1.SchemeGroupVersion.WithKind("APIService"))
	if services == nil || own == nil {
		return nil
	}
	cfg := aggregate.Config{
		Cache: s.cache, Kind: own.Kind, Service: services.Kind, Kinds: s.kinds, Client: s.self,
		Services:    s.resolver(services),
		Certificate: s.cfg.FrontProxy, Logger: s.log,
	}
	if slices := s.kinds.Kind(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice")); slices != nil {
		cfg.Slices = slices.Kind
	}
	a := aggregate.New(cfg)
	s.metrics.Register(a.Metrics())
	return a
}

// remote returns the versions that other servers serve, for discovery.
func (s *Server) remote() ([]discovery.Remote, uint64) {
	if s.aggregate == nil {
		return nil, 0
	}
	return s.aggregate.Remote()
}

// remoteSchemas returns what other servers say of their versions in OpenAPI.
func (s *Server) remoteSchemas() ([]openapi.Remote, uint64) {
	if s.aggregate == nil {
		return nil, 0
	}
	return s.aggregate.Schemas()
}

// computed are the resources that are found out when they are asked for.
func (s *Server) computed(kubelets *proxy.Proxy) map[schema.GroupResource]verb.Computed {
	use := metricsapi.New(metricsapi.Config{Objects: s.objects, Kubelet: kubelets.Kubelet, Logger: s.log})
	return map[schema.GroupResource]verb.Computed{
		{Resource: "componentstatuses"}:                      s.componentStatuses,
		{Group: metricsv1beta1.GroupName, Resource: "nodes"}: use.Nodes,
		{Group: metricsv1beta1.GroupName, Resource: "pods"}:  use.Pods,
	}
}

// newCustom returns what serves custom resources, nil where their definitions
// are not served.
func (s *Server) newCustom() *crd.Controller {
	definitions := s.kinds.Kind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	if definitions == nil {
		return nil
	}
	cfg := crd.Config{
		Cache: s.cache, Kind: definitions.Kind, Client: s.Self(),
		Serve: s.AddKind, Unserve: s.RemoveKind, Logger: s.log,
	}
	if services := s.kinds.Kind(corev1.SchemeGroupVersion.WithKind("Service")); services != nil {
		cfg.Convert = crd.Webhooks(s.resolver(services))
	}
	c := crd.New(cfg)
	s.metrics.Register(c.Metrics())
	return c
}

// newFlow returns what bounds requests, nil when nothing does. Where its
// configuration is not served, only the number in flight is bounded.
func (s *Server) newFlow() *flow.Flow {
	if s.cfg.Flow == nil {
		return nil
	}
	limits := *s.cfg.Flow
	limits.Fair = limits.Fair && s.kinds.Resource(flowcontrolv1.SchemeGroupVersion.WithResource("flowschemas")) != nil
	f := flow.New(flow.Config{
		Limits: limits, Client: s.self, Count: s.count, LongRunning: LongRunning,
		Timeout: s.cfg.RequestTimeout, Logger: s.log,
	})
	s.metrics.Register(f.Metrics())
	return f
}

func (s *Server) runFlow(ctx context.Context) {
	if err := s.flow.Run(ctx); err != nil {
		s.log.Error("priority and fairness does not follow its configuration", "err", err)
	}
}

// count returns how many objects a request may be about.
func (s *Server) count(in *request.Info) int {
	if in.Served == nil || in.Kind.Prefix == "" {
		return 0
	}
	return s.cache.Count(in.Kind)
}

// customSchema is the schema of a custom kind, for OpenAPI and server-side
// apply.
func (s *Server) customSchema(served *request.Served, v3 bool) (json.RawMessage, error) {
	if s.custom == nil {
		return nil, nil
	}
	return s.custom.Schema(served, v3)
}
