// SPDX-License-Identifier: Apache-2.0

package impersonate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/lru"

	"kaji/internal/apiserver/object"
)

// remembered bounds how many users' last successful mode is kept.
const remembered = 10_000

// many is from how many groups or extra values on a right to all is asked for
// before the single ones.
const many = 4

// granted is a user to act as. constraint is the verb that allowed it, empty
// for the one of old.
type granted struct {
	user       user.Info
	constraint string
}

// mode is one sort of impersonation: whom it can stand for, and which verbs
// must be held. The zero name is the impersonation of old.
type mode struct {
	name    string
	applies func(wanted *user.DefaultInfo, sender user.Info) bool
}

// modes are tried in this order.
var modes = [...]mode{
	{"associated-node", func(w *user.DefaultInfo, s user.Info) bool { return nameOnly(w) && runsOn(s, w.Name) }},
	{"arbitrary-node", func(w *user.DefaultInfo, _ user.Info) bool { return nameOnly(w) && nodeOf(w.Name) != "" }},
	{"serviceaccount", func(w *user.DefaultInfo, _ user.Info) bool { return nameOnly(w) && isServiceAccount(w.Name) }},
	{"user-info", func(w *user.DefaultInfo, _ user.Info) bool { return nodeOf(w.Name) == "" && !isServiceAccount(w.Name) }},
	{"", func(*user.DefaultInfo, user.Info) bool { return true }},
}

// judge decides who may act as whom.
type judge struct {
	Config
	// last remembers the mode that a sender succeeded with: it is tried first,
	// and its refusal is the one that is told.
	last *lru.Cache
}

func newJudge(cfg Config) *judge { return &judge{Config: cfg, last: lru.New(remembered)} }

// judge returns the user to act as, or the refusal of the first mode that
// applies.
func (j *judge) judge(ctx context.Context, wanted *user.DefaultInfo, attrs authorizer.Attributes) (*granted, error) {
	sender := attrs.GetUser().GetName()
	order := make([]int, 0, len(modes)+1)
	if i, ok := j.last.Get(sender); ok {
		order = append(order, i.(int))
	}
	for i := range modes {
		if len(order) == 0 || order[0] != i {
			order = append(order, i)
		}
	}
	var first error
	for _, i := range order {
		if !modes[i].applies(wanted, attrs.GetUser()) {
			continue
		}
		g, err := j.check(ctx, &modes[i], wanted, attrs)
		if err == nil {
			j.last.Add(sender, i)
			return g, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// check asks for every right that a mode needs.
func (j *judge) check(ctx context.Context, m *mode, wanted *user.DefaultInfo, attrs authorizer.Attributes) (*granted, error) {
	q := question{judge: j, mode: m, verb: "impersonate", sender: attrs.GetUser(), version: corev1.SchemeGroupVersion}
	constraint := ""
	if m.name != "" {
		constraint = "impersonate:" + m.name
		q.verb, q.version = constraint, authenticationv1.SchemeGroupVersion
		if m.name == "associated-node" {
			q.sender = anyNode{q.sender}
		}
		if err := q.allowed(ctx, onBehalf{attrs, q.sender, "impersonate-on:" + m.name + ":" + attrs.GetVerb()}); err != nil {
			return nil, err
		}
	}
	actual := *wanted
	if err := q.name(ctx, &actual); err != nil {
		return nil, err
	}
	// Groups that come with the name need no right of their own.
	for _, ask := range []func(context.Context, *user.DefaultInfo) error{q.uid, q.groups, q.extra} {
		if err := ask(ctx, wanted); err != nil {
			return nil, err
		}
	}
	addCommonGroup(&actual)
	return &granted{&actual, constraint}, nil
}

// onBehalf is the request itself with the verb of doing it for another.
type onBehalf struct {
	authorizer.Attributes
	sender user.Info
	verb   string
}

func (o onBehalf) GetVerb() string    { return o.verb }
func (o onBehalf) GetUser() user.Info { return o.sender }

// anyNode is a sender that acts as the node it runs on: the authorizer is not
// told which, so that the right is one for all nodes.
type anyNode struct{ user.Info }

// GetExtra tells which attributes there were.
func (a anyNode) GetExtra() map[string][]string {
	keys := make([]string, 0, len(a.Info.GetExtra()))
	for key := range a.Info.GetExtra() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return map[string][]string{"authentication.kubernetes.io/associated-node-keys": keys}
}

// question asks for the rights to single attributes of a user.
type question struct {
	*judge
	mode    *mode
	verb    string
	sender  user.Info
	version schema.GroupVersion // of users and groups
}

func (q *question) about(gv schema.GroupVersion, resource, name string) *authorizer.AttributesRecord {
	return &authorizer.AttributesRecord{User: q.sender, Verb: q.verb, APIGroup: gv.Group, APIVersion: gv.Version,
		Resource: resource, Name: name, ResourceRequest: true}
}

func (q *question) constrained() bool { return q.mode.name != "" }

// name asks for the user, and gives nodes and ServiceAccounts their groups.
func (q *question) name(ctx context.Context, wanted *user.DefaultInfo) error {
	a := q.about(q.version, "users", wanted.Name)
	if node := nodeOf(wanted.Name); node != "" && q.constrained() {
		a.Resource, a.Name = "nodes", node
		if q.mode.name == "associated-node" {
			a.Name = "*"
		}
		if err := q.allowed(ctx, a); err != nil {
			return err
		}
		wanted.Groups = []string{user.NodesGroup}
		return nil
	}
	if namespace, name, err := serviceaccount.SplitUsername(wanted.Name); err == nil {
		a.Resource, a.Namespace, a.Name = "serviceaccounts", namespace, name
		if err := q.allowed(ctx, a); err != nil {
			return err
		}
		if len(wanted.Groups) == 0 {
			wanted.Groups = serviceaccount.MakeGroupNames(namespace)
		}
		return nil
	}
	return q.allowed(ctx, a)
}

func (q *question) uid(ctx context.Context, wanted *user.DefaultInfo) error {
	if wanted.UID == "" {
		return nil
	}
	return q.allowed(ctx, q.about(authenticationv1.SchemeGroupVersion, "uids", wanted.UID))
}

func (q *question) groups(ctx context.Context, wanted *user.DefaultInfo) error {
	a := q.about(q.version, "groups", "")
	if q.constrained() && len(wanted.Groups) > 0 {
		if slices.Contains(wanted.Groups, "") {
			return object.Forbidden(a, "impersonating the empty string group is not allowed")
		}
		if slices.Contains(wanted.Groups, user.SystemPrivilegedGroup) {
			a.Name = user.SystemPrivilegedGroup
			return object.Forbidden(a, "impersonating the system:masters group is not allowed")
		}
		if len(wanted.Groups) >= many {
			a.Name = "*"
			if q.allowed(ctx, a) == nil {
				return nil
			}
		}
	}
	for _, group := range wanted.Groups {
		a.Name = group
		if err := q.allowed(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (q *question) extra(ctx context.Context, wanted *user.DefaultInfo) error {
	if len(wanted.Extra) == 0 {
		return nil
	}
	a := q.about(authenticationv1.SchemeGroupVersion, "userextras", "")
	if q.constrained() {
		if err := validateExtra(wanted.Extra); err != nil {
			return object.Forbidden(a, err.Error())
		}
		if count(wanted.Extra) >= many {
			a.Subresource, a.Name = "*", "*"
			if q.allowed(ctx, a) == nil {
				return nil
			}
		}
	}
	for key, values := range wanted.Extra {
		a.Subresource = key
		for _, value := range values {
			a.Name = value
			if err := q.allowed(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// allowed returns the refusal of a right. An authorizer that allows with an
// error allows.
func (q *question) allowed(ctx context.Context, a authorizer.Attributes) error {
	start := time.Now()
	decision, reason, err := q.Authorizer.Authorize(ctx, a)
	q.Metrics.asked(modeOf(a.GetVerb()), decision == authorizer.DecisionAllow, time.Since(start))
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case apierrors.IsForbidden(err):
		return err
	case err != nil && reason != "":
		reason = fmt.Sprintf("%v: %s", err, reason)
	case err != nil:
		reason = err.Error()
	}
	return object.Forbidden(a, reason)
}

// addCommonGroup adds the group that every user is in.
func addCommonGroup(u *user.DefaultInfo) {
	group := user.AllAuthenticated
	if u.Name == user.Anonymous {
		group = user.AllUnauthenticated
	}
	if slices.Contains(u.Groups, group) || slices.Contains(u.Groups, user.AllUnauthenticated) {
		return
	}
	u.Groups = append(slices.Clip(u.Groups), group)
}

// modeOf names a mode by its verb, as metrics do.
func modeOf(verb string) string {
	if verb == "" || verb == "impersonate" {
		return "legacy"
	}
	for i := range modes {
		if name := modes[i].name; name != "" && (verb == "impersonate:"+name || strings.HasPrefix(verb, "impersonate-on:"+name+":")) {
			return name
		}
	}
	return "unknown"
}

func validateExtra(extra map[string][]string) error {
	for key, values := range extra {
		if key == "" {
			return errors.New("impersonating the empty string key in extra is not allowed")
		}
		if err := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key).ToAggregate(); err != nil {
			return fmt.Errorf("impersonating an invalid key in extra is not allowed: %w", err)
		}
		if key != strings.ToLower(key) {
			return fmt.Errorf("impersonating a non-lowercase key in extra is not allowed: %q", key)
		}
		if len(values) == 0 {
			return errors.New("impersonating empty values in extra is not allowed")
		}
		if slices.Contains(values, "") {
			return errors.New("impersonating the empty string value in extra is not allowed")
		}
	}
	return nil
}

func count(extra map[string][]string) int {
	n := len(extra)
	values := 0
	for _, v := range extra {
		values += len(v)
	}
	return max(n, values)
}
