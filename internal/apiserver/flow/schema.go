// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/apiserver/request"
)

// table sorts requests. It is never changed.
type table struct {
	schemas  []*schema // the ones that match first come first
	fallback *schema
}

// schema is a FlowSchema in force.
type schema struct {
	name  string
	uid   []string // as a header
	hash  uint64
	level *level
	by    distinguisher
	rules []flowcontrolv1.PolicyRulesWithSubjects

	dispatched              prometheus.Counter
	executing, waiting      prometheus.Gauge
	waitedAndServed, served prometheus.Observer
	seats                   prometheus.Observer
	refuse                  func(reason string, waited time.Duration)
}

// distinguisher says what tells the flows of a schema apart.
type distinguisher int

const (
	byNothing distinguisher = iota
	byUser
	byNamespace
)

func distinguisherOf(m *flowcontrolv1.FlowDistinguisherMethod) distinguisher {
	switch {
	case m == nil:
		return byNothing
	case m.Type == flowcontrolv1.FlowDistinguisherMethodByUserType:
		return byUser
	default:
		return byNamespace
	}
}

// match returns the schema of a request.
func (t *table) match(who user.Info, in *request.Info) *schema {
	for _, s := range t.schemas {
		if s.matches(who, in) {
			return s
		}
	}
	return t.fallback
}

func (s *schema) matches(who user.Info, in *request.Info) bool {
	for i := range s.rules {
		r := &s.rules[i]
		if slices.ContainsFunc(r.Subjects, func(sub flowcontrolv1.Subject) bool { return named(&sub, who) }) && asked(r, in) {
			return true
		}
	}
	return false
}

// named says whether who is a subject.
func named(s *flowcontrolv1.Subject, who user.Info) bool {
	switch {
	case s.Kind == flowcontrolv1.SubjectKindUser && s.User != nil:
		return s.User.Name == flowcontrolv1.NameAll || s.User.Name == who.GetName()
	case s.Kind == flowcontrolv1.SubjectKindGroup && s.Group != nil:
		return s.Group.Name == flowcontrolv1.NameAll || slices.Contains(who.GetGroups(), s.Group.Name)
	case s.Kind == flowcontrolv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
		account := s.ServiceAccount
		if account.Name == flowcontrolv1.NameAll {
			rest, ok := strings.CutPrefix(who.GetName(), serviceaccount.ServiceAccountUsernamePrefix)
			return ok && strings.HasPrefix(rest, account.Namespace+serviceaccount.ServiceAccountUsernameSeparator)
		}
		return serviceaccount.MatchesUsername(account.Namespace, account.Name, who.GetName())
	}
	return false
}

// asked says whether a rule is about what a request asks for.
func asked(r *flowcontrolv1.PolicyRulesWithSubjects, in *request.Info) bool {
	if !in.IsResourceRequest {
		return slices.ContainsFunc(r.NonResourceRules, func(n flowcontrolv1.NonResourcePolicyRule) bool {
			return has(n.Verbs, in.Verb) && leads(n.NonResourceURLs, in.Path)
		})
	}
	resource := in.Resource
	if in.Subresource != "" {
		resource += "/" + in.Subresource
	}
	return slices.ContainsFunc(r.ResourceRules, func(n flowcontrolv1.ResourcePolicyRule) bool {
		if !has(n.Verbs, in.Verb) || !has(n.Resources, resource) || !has(n.APIGroups, in.APIGroup) {
			return false
		}
		if in.Namespace == "" {
			return n.ClusterScope
		}
		return has(n.Namespaces, in.Namespace)
	})
}

// has says whether a list names word, or everything.
func has(list []string, word string) bool {
	return len(list) == 1 && list[0] == "*" || slices.Contains(list, word)
}

// leads says whether one of the patterns leads to path.
func leads(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "*" || p == path {
			return true
		}
		prefix := strings.TrimSuffix(p, "*")
		return strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
	})
}
