// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/backend"
)

// Source is what one Ingress asks for.
type Source struct {
	Ingress types.NamespacedName
	Created time.Time
	// Rules are those with a path, Fallback the spec's default backend.
	Rules    []*Rule
	Fallback *Rule
	// Certificates lead from hosts to the names of Secrets in the namespace.
	Certificates []Certificate
	// Canary says that the rules take requests of other rules.
	Canary bool
	// Problems are for the owner of the Ingress.
	Problems []string
}

// Certificate is a host's; Secret is empty for the default certificate.
type Certificate struct{ Host, Secret string }

// Secrets returns the names of all Secrets the Ingress refers to.
func (s *Source) Secrets() []types.NamespacedName {
	var out []types.NamespacedName
	for _, c := range s.Certificates {
		if c.Secret != "" {
			out = append(out, types.NamespacedName{Namespace: s.Ingress.Namespace, Name: c.Secret})
		}
	}
	for _, r := range append(s.Rules, s.Fallback) {
		if r != nil && r.Settings.Auth != nil {
			return append(out, types.NamespacedName{Namespace: s.Ingress.Namespace, Name: r.Settings.Auth.Secret})
		}
	}
	return out
}

// Compile reads an Ingress. What is wrong in it is left out and told in Problems.
func Compile(ing *networkingv1.Ingress) *Source {
	settings, problems := annotation.Parse(ing.Annotations)
	c := &compiler{ing: ing, settings: settings, out: &Source{
		Ingress: types.NamespacedName{Namespace: ing.Namespace, Name: ing.Name}, Created: ing.CreationTimestamp.Time, Problems: problems, Canary: settings.Canary != nil}}
	if b := ing.Spec.DefaultBackend; b != nil {
		c.out.Fallback = c.rule("", "", networkingv1.PathTypePrefix, b)
	}
	for _, r := range ing.Spec.Rules {
		c.host(r)
	}
	c.aliases()
	for _, t := range ing.Spec.TLS {
		for _, host := range c.hosts(t) {
			c.out.Certificates = append(c.out.Certificates, Certificate{Host(host), t.SecretName})
		}
	}
	return c.out
}

type compiler struct {
	ing      *networkingv1.Ingress
	settings *annotation.Settings
	out      *Source
}

// hosts are those a TLS section is for; without any, those of the rules.
func (c *compiler) hosts(t networkingv1.IngressTLS) []string {
	if len(t.Hosts) > 0 {
		return t.Hosts
	}
	var out []string
	for _, r := range c.ing.Spec.Rules {
		out = append(out, r.Host)
	}
	return out
}

func (c *compiler) host(r networkingv1.IngressRule) {
	host := strings.ToLower(r.Host)
	if r.HTTP == nil {
		// All of the host's traffic goes to the default backend.
		if c.out.Fallback != nil {
			c.out.Rules = append(c.out.Rules, c.rule(host, "/", networkingv1.PathTypePrefix, c.ing.Spec.DefaultBackend))
		}
		return
	}
	for _, p := range r.HTTP.Paths {
		kind := networkingv1.PathTypeImplementationSpecific
		if p.PathType != nil {
			kind = *p.PathType
		}
		at := p.Path
		if at == "" {
			at = "/"
		}
		rule := c.rule(host, at, kind, &p.Backend)
		if c.settings.UseRegex {
			if err := rule.compile(); err != nil {
				c.out.Problems = append(c.out.Problems, fmt.Sprintf("path %q is not a regular expression: %v", at, err))
				continue
			}
		}
		c.out.Rules = append(c.out.Rules, rule)
	}
}

// aliases gives more hosts the rules of the first one.
func (c *compiler) aliases() {
	if len(c.ing.Spec.Rules) == 0 {
		return
	}
	first := strings.ToLower(c.ing.Spec.Rules[0].Host)
	for _, alias := range c.settings.Aliases {
		for _, r := range c.out.Rules {
			if r.Host == first {
				same := *r
				same.Host = strings.ToLower(alias)
				c.out.Rules = append(c.out.Rules, &same)
			}
		}
	}
}

// compile makes the path a pattern, anchored and blind to case as nginx has it.
func (r *Rule) compile() error {
	text := "(?i)^" + r.Path
	if r.kind == networkingv1.PathTypeExact {
		text += "$"
	}
	var err error
	r.pattern, err = regexp.Compile(text)
	return err
}

func (c *compiler) rule(host, at string, kind networkingv1.PathType, b *networkingv1.IngressBackend) *Rule {
	r := &Rule{Ingress: c.out.Ingress, UID: c.ing.UID, Host: host, Path: at, Settings: c.settings, kind: kind}
	if b.Service != nil {
		r.Backend = &backend.Ref{Namespace: c.ing.Namespace, Service: b.Service.Name, Port: b.Service.Port}
	} else {
		c.out.Problems = append(c.out.Problems, "backends that are resources are not supported")
	}
	return r
}
