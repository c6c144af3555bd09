// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/nodevolumes"
	"kaji/internal/apiserver/admission/podsecurity"
	"kaji/internal/apiserver/admission/resourcequota"
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
	{name: nodevolumes.Name, make: func(*Server, []byte) (admission.Plugin, error) { return nodevolumes.Plugin{}, nil }},
	{name: podsecurity.Name, make: func(s *Server, configuration []byte) (admission.Plugin, error) {
		return podsecurity.New(podsecurity.Config{Cache: s.cache, Kinds: s.kinds, Configuration: configuration})
	}},
	{name: resourcequota.Name, make: func(s *Server, configuration []byte) (admission.Plugin, error) {
		return resourcequota.New(resourcequota.Config{Cache: s.cache, Kinds: s.kinds, Client: s.self, Configuration: configuration})
	}},
}

// builtIn makes the plug-ins that are on. The server's cache, kinds and own
// client exist by then.
func (s *Server) builtIn() ([]admission.Plugin, error) {
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
