// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/api"
)

// index holds compiled roles, and bindings by whom they name.
type index struct {
	roles    map[roleKey][]rule
	bindings map[subjectKey][]*binding // by name
}

// roleKey is a Role, or with an empty namespace a ClusterRole.
type roleKey struct{ namespace, name string }

// subjectKey is one user or group in one namespace; the empty namespace holds
// the cluster-wide bindings.
type subjectKey struct {
	namespace, name string
	group           bool
}

// binding is a RoleBinding, or with an empty namespace a ClusterRoleBinding.
type binding struct {
	namespace, name string
	role            rbacv1.RoleRef
	subjects        []rbacv1.Subject
}

func (b *binding) compare(name string) int { return strings.Compare(b.name, name) }

// allows words why a binding lets one of its subjects pass, as upstream does.
func (b *binding) allows(s *rbacv1.Subject) string {
	kind, name := "ClusterRoleBinding", b.name
	if b.namespace != "" {
		kind, name = "RoleBinding", b.name+"/"+b.namespace
	}
	subject := s.Name
	if s.Kind == rbacv1.ServiceAccountKind {
		subject += "/" + cmp.Or(s.Namespace, b.namespace)
	}
	// This is said of every request that is allowed.
	reason := append(make([]byte, 0, 192), "RBAC: allowed by "...)
	reason = strconv.AppendQuote(append(append(reason, kind...), ' '), name)
	reason = append(append(reason, " of "...), b.role.Kind...)
	reason = strconv.AppendQuote(append(reason, ' '), b.role.Name)
	reason = append(append(reason, " to "...), s.Kind...)
	return string(strconv.AppendQuote(append(reason, ' '), subject))
}

func newIndex() *index {
	return &index{roles: map[roleKey][]rule{}, bindings: map[subjectKey][]*binding{}}
}

func (ix *index) add(o api.Object) {
	switch o := o.(type) {
	case *rbacv1.Role:
		ix.roles[roleKey{o.Namespace, o.Name}] = compile(o.Rules)
	case *rbacv1.ClusterRole:
		ix.roles[roleKey{"", o.Name}] = compile(o.Rules)
	case *rbacv1.RoleBinding:
		ix.bind(&binding{o.Namespace, o.Name, o.RoleRef, o.Subjects})
	case *rbacv1.ClusterRoleBinding:
		ix.bind(&binding{"", o.Name, o.RoleRef, o.Subjects})
	}
}

func (ix *index) remove(o api.Object) {
	switch o := o.(type) {
	case *rbacv1.Role:
		delete(ix.roles, roleKey{o.Namespace, o.Name})
	case *rbacv1.ClusterRole:
		delete(ix.roles, roleKey{"", o.Name})
	case *rbacv1.RoleBinding:
		ix.unbind(o.Namespace, o.Name, o.Subjects)
	case *rbacv1.ClusterRoleBinding:
		ix.unbind("", o.Name, o.Subjects)
	}
}

func (ix *index) bind(b *binding) {
	for i := range b.subjects {
		key, ok := keyOf(b.namespace, &b.subjects[i])
		if !ok {
			continue
		}
		named := ix.bindings[key]
		at, found := slices.BinarySearchFunc(named, b.name, (*binding).compare)
		if !found {
			named = slices.Insert(named, at, b)
		}
		named[at] = b
		ix.bindings[key] = named
	}
}

func (ix *index) unbind(namespace, name string, subjects []rbacv1.Subject) {
	for i := range subjects {
		key, ok := keyOf(namespace, &subjects[i])
		if !ok {
			continue
		}
		named := ix.bindings[key]
		at, found := slices.BinarySearchFunc(named, name, (*binding).compare)
		switch {
		case found && len(named) == 1:
			delete(ix.bindings, key)
		case found:
			ix.bindings[key] = slices.Delete(named, at, at+1)
		}
	}
}

// keyOf tells whom a subject of a binding in a namespace means. A ServiceAccount
// is a user by its full name; without a namespace it is in the binding's.
func keyOf(namespace string, s *rbacv1.Subject) (subjectKey, bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subjectKey{namespace, s.Name, false}, true
	case rbacv1.GroupKind:
		return subjectKey{namespace, s.Name, true}, true
	case rbacv1.ServiceAccountKind:
		of := s.Namespace
		if of == "" {
			of = namespace
		}
		if of == "" {
			return subjectKey{}, false
		}
		return subjectKey{namespace, serviceaccount.MakeUsername(of, s.Name), false}, true
	}
	return subjectKey{}, false
}

// rules finds the rules of a role.
func (ix *index) rules(ref rbacv1.RoleRef, namespace string) ([]rule, error) {
	switch ref.Kind {
	case "Role":
		rules, ok := ix.roles[roleKey{namespace, ref.Name}]
		if !ok {
			return nil, missing("role", ref.Name)
		}
		return rules, nil
	case "ClusterRole":
		rules, ok := ix.roles[roleKey{"", ref.Name}]
		if !ok {
			return nil, missing("clusterrole", ref.Name)
		}
		return rules, nil
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
}

// visit shows every binding of a user that holds in a namespace with the rules
// of its role, or why there are none, until f returns false. The key says which
// of the binding's subjects is meant.
func (ix *index) visit(u user.Info, namespace string, f func(*binding, subjectKey, []rule, error) bool) {
	if u == nil {
		return
	}
	scopes := [2]string{"", namespace}
	for _, scope := range scopes[:1+min(len(namespace), 1)] {
		if !ix.visitSubject(subjectKey{scope, u.GetName(), false}, f) {
			return
		}
		for _, group := range u.GetGroups() {
			if !ix.visitSubject(subjectKey{scope, group, true}, f) {
				return
			}
		}
	}
}

func (ix *index) visitSubject(key subjectKey, f func(*binding, subjectKey, []rule, error) bool) bool {
	for _, b := range ix.bindings[key] {
		rules, err := ix.rules(b.role, b.namespace)
		if !f(b, key, rules, err) {
			return false
		}
	}
	return true
}

// subject returns the subject that a key came from.
func (b *binding) subject(key subjectKey) *rbacv1.Subject {
	for i := range b.subjects {
		if k, ok := keyOf(b.namespace, &b.subjects[i]); ok && k == key {
			return &b.subjects[i]
		}
	}
	return &rbacv1.Subject{}
}
