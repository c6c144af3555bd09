// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"

	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/always"
	"kaji/internal/apiserver/admission/alwayspullimages"
	"kaji/internal/apiserver/admission/antiaffinity"
	"kaji/internal/apiserver/admission/certificate"
	"kaji/internal/apiserver/admission/claimresize"
	"kaji/internal/apiserver/admission/declaredfeatures"
	"kaji/internal/apiserver/admission/defaultingressclass"
	"kaji/internal/apiserver/admission/defaultstorageclass"
	"kaji/internal/apiserver/admission/defaulttolerationseconds"
	"kaji/internal/apiserver/admission/denyserviceexternalips"
	"kaji/internal/apiserver/admission/eventratelimit"
	"kaji/internal/apiserver/admission/extendedresourcetoleration"
	"kaji/internal/apiserver/admission/imagepolicy"
	"kaji/internal/apiserver/admission/limitranger"
	"kaji/internal/apiserver/admission/namespace"
	"kaji/internal/apiserver/admission/noderestriction"
	"kaji/internal/apiserver/admission/nodetaint"
	"kaji/internal/apiserver/admission/nodevolumes"
	"kaji/internal/apiserver/admission/ownerreferences"
	"kaji/internal/apiserver/admission/podgroupprotection"
	"kaji/internal/apiserver/admission/podnodeselector"
	"kaji/internal/apiserver/admission/podresize"
	"kaji/internal/apiserver/admission/podsecurity"
	"kaji/internal/apiserver/admission/podtolerationrestriction"
	"kaji/internal/apiserver/admission/podtopologylabels"
	"kaji/internal/apiserver/admission/priority"
	"kaji/internal/apiserver/admission/resourcequota"
	"kaji/internal/apiserver/admission/runtimeclass"
	"kaji/internal/apiserver/admission/serviceaccount"
	"kaji/internal/apiserver/admission/storageobjectinuseprotection"
)

// plugin is one built-in admission plug-in of the list.
type plugin struct {
	name string
	// off says that it runs only where it is asked for by name.
	off  bool
	make func(s *Server, configuration []byte) (admission.Plugin, error)
}

// plugins are the built-in admission plug-ins in the order they run, which is
// upstream's. Those that users define come between them: see withDynamic.
var plugins = []plugin{
	{name: always.AdmitName, off: true, make: needless(always.Admit(always.AdmitName))},
	{name: namespace.AutoProvisionName, off: true, make: func(s *Server, _ []byte) (admission.Plugin, error) {
		return namespace.NewAutoProvision(s.reader(), s.self), nil
	}},
	{name: namespace.LifecycleName, make: reading(namespace.NewLifecycle)},
	{name: namespace.ExistsName, off: true, make: reading(namespace.NewExists)},
	{name: antiaffinity.Name, off: true, make: needless(antiaffinity.Plugin{})},
	{name: limitranger.Name, make: reading(limitranger.New)},
	{name: serviceaccount.Name, make: reading(serviceaccount.New)},
	{name: noderestriction.Name, off: true, make: func(s *Server, _ []byte) (admission.Plugin, error) {
		return noderestriction.New(s.reader(), s.authorizer()), nil
	}},
	{name: nodevolumes.Name, make: needless(nodevolumes.Plugin{})}, // kaji's own
	{name: nodetaint.Name, make: needless(nodetaint.Plugin{})},
	{name: alwayspullimages.Name, off: true, make: needless(alwayspullimages.Plugin{})},
	{name: imagepolicy.Name, off: true, make: func(_ *Server, configuration []byte) (admission.Plugin, error) {
		return imagepolicy.New(configuration)
	}},
	{name: podsecurity.Name, make: func(s *Server, configuration []byte) (admission.Plugin, error) {
		return podsecurity.New(podsecurity.Config{Cache: s.cache, Kinds: s.kinds, Configuration: configuration})
	}},
	{name: podnodeselector.Name, off: true, make: configured(podnodeselector.New)},
	{name: priority.Name, make: reading(priority.New)},
	{name: defaulttolerationseconds.Name, make: func(s *Server, _ []byte) (admission.Plugin, error) {
		return defaulttolerationseconds.New(s.cfg.TolerationSeconds), nil
	}},
	{name: podtolerationrestriction.Name, off: true, make: configured(podtolerationrestriction.New)},
	{name: eventratelimit.Name, off: true, make: func(_ *Server, configuration []byte) (admission.Plugin, error) {
		return eventratelimit.New(configuration)
	}},
	{name: extendedresourcetoleration.Name, off: true, make: needless(extendedresourcetoleration.Plugin{})},
	{name: defaultstorageclass.Name, make: reading(defaultstorageclass.New)},
	{name: storageobjectinuseprotection.Name, make: needless(storageobjectinuseprotection.Plugin{})},
	{name: podgroupprotection.Name, make: needless(podgroupprotection.Plugin{})},
	{name: ownerreferences.Name, off: true, make: func(s *Server, _ []byte) (admission.Plugin, error) {
		return ownerreferences.New(s.kinds, s.authorizer()), nil
	}},
	{name: claimresize.Name, make: reading(claimresize.New)},
	{name: runtimeclass.Name, make: reading(runtimeclass.New)},
	{name: certificate.ApprovalName, make: judging(certificate.NewApproval)},
	{name: certificate.SigningName, make: judging(certificate.NewSigning)},
	{name: certificate.AttestName, make: judging(certificate.NewAttest)},
	{name: certificate.SubjectName, make: needless(certificate.Subject{})},
	{name: defaultingressclass.Name, make: reading(defaultingressclass.New)},
	{name: denyserviceexternalips.Name, off: true, make: needless(denyserviceexternalips.Plugin{})},
	{name: podtopologylabels.Name, make: reading(podtopologylabels.New)},
	{name: declaredfeatures.Name, make: func(s *Server, _ []byte) (admission.Plugin, error) {
		return declaredfeatures.New(s.reader())
	}},
	{name: podresize.Name, make: reading(podresize.New)},
	{name: resourcequota.Name, make: func(s *Server, configuration []byte) (admission.Plugin, error) {
		return resourcequota.New(resourcequota.Config{Cache: s.cache, Kinds: s.kinds, Client: s.self, Configuration: configuration})
	}},
	{name: always.DenyName, off: true, make: needless(always.Deny{})},
}

// needless, reading, configured and judging are how plug-ins are made that need
// nothing, the server's objects, those and a configuration, or what it allows to
// whom.
func needless(p admission.Plugin) func(*Server, []byte) (admission.Plugin, error) {
	return func(*Server, []byte) (admission.Plugin, error) { return p, nil }
}

func reading[P admission.Plugin](make func(admission.Reader) P) func(*Server, []byte) (admission.Plugin, error) {
	return func(s *Server, _ []byte) (admission.Plugin, error) { return make(s.reader()), nil }
}

func configured[P admission.Plugin](make func(admission.Reader, []byte) (P, error)) func(*Server, []byte) (admission.Plugin, error) {
	return func(s *Server, configuration []byte) (admission.Plugin, error) {
		return make(s.reader(), configuration)
	}
}

func judging[P admission.Plugin](make func(authorizer.Authorizer) P) func(*Server, []byte) (admission.Plugin, error) {
	return func(s *Server, _ []byte) (admission.Plugin, error) { return make(s.authorizer()), nil }
}

func (s *Server) reader() admission.Reader { return admission.Reader{Cache: s.cache, Kinds: s.kinds} }

// authorizer is who judges requests; everything is allowed where nobody does.
func (s *Server) authorizer() authorizer.Authorizer {
	if s.cfg.Authorizer == nil {
		return authorizerfactory.NewAlwaysAllowAuthorizer()
	}
	return s.cfg.Authorizer
}

// userDefined are the plug-ins of webhooks and policies, in their order.
var userDefined = []string{"MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"}

// checkAdmission refuses names of plug-ins that there are not, as upstream
// words it.
func checkAdmission(enabled, disabled []string) error {
	known := func(name string) bool {
		return slices.Contains(userDefined, name) || slices.ContainsFunc(plugins, func(p plugin) bool { return p.name == name })
	}
	for flag, names := range map[string][]string{"enable-admission-plugins": enabled, "disable-admission-plugins": disabled} {
		for _, name := range names {
			if !known(name) {
				return fmt.Errorf("%s plugin %q is unknown", flag, name)
			}
		}
	}
	for _, name := range enabled {
		if slices.Contains(disabled, name) {
			return fmt.Errorf("%v in enable-admission-plugins and disable-admission-plugins overlapped", []string{name})
		}
	}
	return nil
}

// builtIn makes the plug-ins that are on. The server's cache, kinds and own
// client exist by then.
func (s *Server) builtIn() ([]admission.Plugin, error) {
	if err := checkAdmission(s.cfg.EnabledAdmission, s.cfg.DisabledAdmission); err != nil {
		return nil, err
	}
	var all []admission.Plugin
	for _, p := range plugins {
		if slices.Contains(s.cfg.DisabledAdmission, p.name) || p.off && !slices.Contains(s.cfg.EnabledAdmission, p.name) {
			continue
		}
		made, err := p.make(s, s.cfg.AdmissionConfiguration[p.name])
		if err != nil {
			return nil, fmt.Errorf("couldn't init admission plugin %q: %w", p.name, err)
		}
		if counts, ok := made.(interface{ Collectors() []prometheus.Collector }); ok {
			s.metrics.Register(counts.Collectors()...)
		}
		all = append(all, made)
	}
	return all, nil
}
