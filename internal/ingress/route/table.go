// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Table leads from hosts and paths to rules. It does not change.
type Table struct {
	hosts    map[string]*server
	fallback *Rule
	secrets  map[string]types.NamespacedName
	rules    []*Rule
	// canaries lead from rules to those that take some of their requests.
	canaries map[*Rule][]*Rule
	// passthrough leads from hosts to the rules whose backends do TLS themselves.
	passthrough map[string]*Rule
}

// server is one host.
type server struct {
	exact map[string]*Rule
	// other are the longest paths first.
	other    []*Rule
	fallback *Rule
}

// Merge makes a table. Where two sources want the same, the older one has it.
func Merge(sources []*Source) *Table {
	sorted := slices.Clone(sources)
	slices.SortFunc(sorted, func(a, b *Source) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Ingress.String(), b.Ingress.String()))
	})
	t := &Table{hosts: map[string]*server{}, secrets: map[string]types.NamespacedName{}, canaries: map[*Rule][]*Rule{}, passthrough: map[string]*Rule{}}
	var canaries []*Rule
	for _, s := range sorted {
		if s.Canary {
			canaries = append(canaries, s.Rules...)
			continue
		}
		for _, r := range s.Rules {
			t.add(r, s.Fallback)
		}
		if s.Fallback != nil {
			t.rules = append(t.rules, s.Fallback)
			if len(s.Rules) == 0 && t.fallback == nil {
				t.fallback = s.Fallback
			}
		}
		t.certificates(s)
	}
	for _, one := range t.hosts {
		slices.SortStableFunc(one.other, func(a, b *Rule) int {
			return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(order(a), order(b)))
		})
	}
	for _, r := range canaries {
		t.addCanary(r)
	}
	return t
}

// addCanary gives a canary's rule to the one with the same host and path. Where
// there is none, it has no effect.
func (t *Table) addCanary(r *Rule) {
	one := t.hosts[r.Host]
	if one == nil {
		return
	}
	for _, main := range append([]*Rule{one.exact[r.Path]}, one.other...) {
		if main != nil && main.Path == r.Path && main.kind == r.kind {
			t.canaries[main] = append(t.canaries[main], r)
			t.rules = append(t.rules, r)
			return
		}
	}
}

// Canaries are the rules that may take requests of a rule.
func (t *Table) Canaries(r *Rule) []*Rule { return t.canaries[r] }

// Passthrough returns the rule of a host whose backend does TLS itself, or nil.
func (t *Table) Passthrough(host string) *Rule {
	if r := t.passthrough[host]; r != nil {
		return r
	}
	return t.passthrough[wildcard(host)]
}

// order is which of two rules of the same length comes first.
func order(r *Rule) int {
	switch {
	case r.kind == networkingv1.PathTypeExact:
		return 0
	case r.kind == networkingv1.PathTypePrefix:
		return 1
	}
	return 2
}

func (t *Table) add(r, fallback *Rule) {
	one := t.hosts[r.Host]
	if one == nil {
		one = &server{exact: map[string]*Rule{}}
		t.hosts[r.Host] = one
	}
	if one.fallback == nil {
		one.fallback = fallback
	}
	t.rules = append(t.rules, r)
	if r.Settings.Passthrough && r.Host != "" && r.Backend != nil && t.passthrough[r.Host] == nil {
		t.passthrough[r.Host] = r
	}
	if r.kind == networkingv1.PathTypeExact && r.pattern == nil {
		if one.exact[r.Path] == nil {
			one.exact[r.Path] = r
		}
		return
	}
	one.other = append(one.other, r)
}

func (t *Table) certificates(s *Source) {
	for _, c := range s.Certificates {
		name := types.NamespacedName{Namespace: s.Ingress.Namespace, Name: c.Secret}
		if before, ok := t.secrets[c.Host]; !ok || before.Name == "" && c.Secret != "" {
			t.secrets[c.Host] = name
		}
	}
}

// Rules returns all rules, default backends and canaries among them.
func (t *Table) Rules() []*Rule { return t.rules }

// Match returns the rule for a request, or nil. Host and Clean prepare its
// arguments. A host that has rules of its own is not given those of a wildcard
// or of all hosts: only default backends stand in for a missing path.
func (t *Table) Match(host, path string) *Rule {
	one := t.server(host)
	if one == nil {
		return t.fallback
	}
	if r := one.exact[path]; r != nil {
		return r
	}
	for _, r := range one.other {
		if r.matches(path) {
			return r
		}
	}
	if one.fallback != nil {
		return one.fallback
	}
	return t.fallback
}

func (t *Table) server(host string) *server {
	if one := t.hosts[host]; one != nil {
		return one
	}
	if one := t.hosts[wildcard(host)]; one != nil {
		return one
	}
	return t.hosts[""]
}

// wildcard is the name that covers a host: of one label only.
func wildcard(host string) string {
	_, rest, ok := strings.Cut(host, ".")
	if !ok || rest == "" {
		return ""
	}
	return "*." + rest
}

// Secret returns the Secret with the certificate of a host. Without a name it
// is the default certificate; false says that no Ingress asks for TLS there.
func (t *Table) Secret(host string) (types.NamespacedName, bool) {
	for _, name := range []string{host, wildcard(host), ""} {
		if secret, ok := t.secrets[name]; ok {
			return secret, true
		}
	}
	return types.NamespacedName{}, false
}
