// SPDX-License-Identifier: Apache-2.0

// Package node lets a node agent read what its own pods need and no more: their
// Secrets, ConfigMaps, claims and volumes, tokens of their ServiceAccounts, and
// its own Node, Lease and CSINode. The authorization chain calls it before RBAC.
//
// It keeps no graph: a node runs some hundred pods at most, the cache indexes
// them by node, and looking them through costs microseconds.
package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	"kaji/internal/apiserver/authz/rbac"
	"kaji/internal/apiserver/cache"
)

const (
	userPrefix     = "system:node:"
	leaseNamespace = "kube-node-lease"
	nodeNameField  = "spec.nodeName"
)

// Kinds are the kinds it reads, as the catalog has them.
type Kinds struct {
	Pod, PersistentVolume, PersistentVolumeClaim, VolumeAttachment, ResourceClaim, PodCertificateRequest *api.Kind
}

// Authorizer implements authorizer.UnconditionalAuthorizer over the cache.
type Authorizer struct {
	cache *cache.Cache
	kinds Kinds
	rules []rbacv1.PolicyRule
}

// New returns an authorizer; rules are what every node may do with the
// resources that are not subdivided (the role system:node).
func New(c *cache.Cache, kinds Kinds, rules []rbacv1.PolicyRule) *Authorizer {
	return &Authorizer{cache: c, kinds: kinds, rules: rules}
}

// Name returns the node a user is the agent of. isNode is true for every member
// of system:nodes, name is empty when its user name is not a node's.
func Name(u user.Info) (name string, isNode bool) {
	if u == nil {
		return "", false
	}
	for _, g := range u.GetGroups() {
		if g == user.NodesGroup {
			name, _ = strings.CutPrefix(u.GetName(), userPrefix)
			if name == u.GetName() {
				name = ""
			}
			// Users that are no nodes may be in the group; they are no business
			// of this authorizer.
			return name, strings.HasPrefix(u.GetName(), userPrefix)
		}
	}
	return "", false
}

func no(reason string) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, reason, nil
}

func yes() (authorizer.Decision, string, error) { return authorizer.DecisionAllow, "", nil }

// Authorize implements authorizer.UnconditionalAuthorizer.
func (z *Authorizer) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	name, isNode := Name(a.GetUser())
	if !isNode {
		return no("")
	}
	if name == "" {
		return no(fmt.Sprintf("unknown node for user %q", a.GetUser().GetName()))
	}
	if a.IsResourceRequest() {
		r := &judge{z, ctx, a, name}
		switch (schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}) {
		case corev1.Resource("secrets"):
			return r.read(r.secret)
		case corev1.Resource("configmaps"):
			return r.read(r.configMap)
		case corev1.Resource("persistentvolumeclaims"):
			if a.GetSubresource() == "status" {
				return r.updateStatus(r.claim)
			}
			return r.get(r.claim)
		case corev1.Resource("persistentvolumes"):
			return r.get(r.volume)
		case resourcev1.Resource("resourceclaims"):
			return r.get(r.resourceClaim)
		case storagev1.Resource("volumeattachments"):
			return r.get(r.attachment)
		case corev1.Resource("serviceaccounts"):
			return r.serviceAccount()
		case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
			return r.lease()
		case storagev1.Resource("csinodes"):
			return r.csiNode()
		case resourcev1.Resource("resourceslices"):
			return r.resourceSlice()
		case certificatesv1.Resource("podcertificaterequests"):
			return r.certificateRequest()
		case corev1.Resource("nodes"):
			return r.ownNode()
		case corev1.Resource("pods"):
			return r.pod()
		}
	}
	if rbac.Allowed(a, z.rules) {
		return yes()
	}
	return no("")
}

// judge is one request of one node.
type judge struct {
	*Authorizer
	ctx  context.Context
	a    authorizer.Attributes
	node string
}

// related allows the request if the object it names belongs to a pod of the node.
func (r *judge) related(belongs func(namespace, name string) (bool, error)) (authorizer.Decision, string, error) {
	if r.a.GetName() == "" {
		return no("No Object name found")
	}
	ok, err := belongs(r.a.GetNamespace(), r.a.GetName())
	if err != nil || !ok {
		return no(fmt.Sprintf("no relationship found between node '%s' and this object", r.node))
	}
	return yes()
}

func (r *judge) read(belongs func(namespace, name string) (bool, error)) (authorizer.Decision, string, error) {
	switch r.a.GetVerb() {
	case "get", "list", "watch":
	default:
		return no("can only read resources of this type")
	}
	if r.a.GetSubresource() != "" {
		return no("cannot read subresource")
	}
	if r.a.GetNamespace() == "" {
		return no("can only read namespaced object of this type")
	}
	return r.related(belongs)
}

func (r *judge) get(belongs func(namespace, name string) (bool, error)) (authorizer.Decision, string, error) {
	if r.a.GetVerb() != "get" {
		return no("can only get individual resources of this type")
	}
	if r.a.GetSubresource() != "" {
		return no("cannot get subresource")
	}
	return r.related(belongs)
}

func (r *judge) updateStatus(belongs func(namespace, name string) (bool, error)) (authorizer.Decision, string, error) {
	switch r.a.GetVerb() {
	case "get", "update", "patch":
	default:
		return no("can only get/update/patch this type")
	}
	return r.related(belongs)
}

func (r *judge) serviceAccount() (authorizer.Decision, string, error) {
	if r.a.GetVerb() == "get" && r.a.GetSubresource() == "" {
		return r.related(r.account)
	}
	if r.a.GetVerb() != "create" || r.a.GetSubresource() != "token" {
		return no("can only create tokens for individual service accounts")
	}
	return r.related(r.account)
}

func (r *judge) lease() (authorizer.Decision, string, error) {
	switch r.a.GetVerb() {
	case "get", "create", "update", "patch", "delete":
	default:
		return no("can only get, create, update, patch, or delete a node lease")
	}
	if r.a.GetNamespace() != leaseNamespace {
		return no(fmt.Sprintf("can only access leases in the %q system namespace", leaseNamespace))
	}
	if r.a.GetVerb() != "create" && r.a.GetName() != r.node {
		return no("can only access node lease with the same name as the requesting node")
	}
	return yes()
}

func (r *judge) csiNode() (authorizer.Decision, string, error) {
	switch r.a.GetVerb() {
	case "get", "create", "update", "patch", "delete":
	default:
		return no("can only get, create, update, patch, or delete a CSINode")
	}
	if r.a.GetSubresource() != "" {
		return no("cannot authorize CSINode subresources")
	}
	if r.a.GetVerb() != "create" && r.a.GetName() != r.node {
		return no("can only access CSINode with the same name as the requesting node")
	}
	return yes()
}

func (r *judge) resourceSlice() (authorizer.Decision, string, error) {
	if r.a.GetSubresource() != "" {
		return no("cannot authorize ResourceSlice subresources")
	}
	switch r.a.GetVerb() {
	case "create", "get", "update", "patch", "delete":
		// The object's node is admission's to check.
		return yes()
	case "watch", "list", "deletecollection":
		if r.selects(resourcev1.ResourceSliceSelectorNodeName, r.node) {
			return yes()
		}
		return no("can only list/watch/deletecollection resourceslices with nodeName field selector")
	}
	return no("can only get, create, update, patch, list, watch, delete, or deletecollection a ResourceSlice")
}

// certificateRequest lets an agent ask for certificates, which admission
// restricts further, and see what became of what it asked for.
func (r *judge) certificateRequest() (authorizer.Decision, string, error) {
	if r.a.GetSubresource() != "" {
		return no("nodes may not access the status subresource of PodCertificateRequests")
	}
	switch r.a.GetVerb() {
	case "create":
		return yes()
	case "get":
		return r.related(r.podCertificateRequest)
	case "list", "watch":
		if r.selects("spec.nodeName", r.node) {
			return yes()
		}
		return no("can only list/watch podcertificaterequests with nodeName field selector")
	}
	return no(fmt.Sprintf("nodes may not %s podcertificaterequests", r.a.GetVerb()))
}

// ownNode lets an agent register and see its own Node; which fields it may
// change is admission's to check.
func (r *judge) ownNode() (authorizer.Decision, string, error) {
	switch r.a.GetVerb() {
	case "create", "update", "patch":
		if rbac.Allowed(r.a, r.rules) {
			return yes()
		}
		return no("")
	case "get", "list", "watch":
		if r.a.GetSubresource() != "" {
			return no("can only get/list/watch/create/update/patch nodes")
		}
		if r.a.GetName() == r.node || r.selects("metadata.name", r.node) {
			return yes()
		}
		read := "all nodes"
		if name := r.a.GetName(); name != "" {
			read = "'" + name + "'"
		}
		return no(fmt.Sprintf("node '%s' cannot read %s, only its own Node object", r.node, read))
	}
	return no("")
}

func (r *judge) pod() (authorizer.Decision, string, error) {
	switch r.a.GetVerb() {
	case "get":
		if r.a.GetSubresource() != "" {
			return no("")
		}
		return r.related(r.own)
	case "list", "watch":
		if r.a.GetSubresource() != "" {
			return no("")
		}
		if r.selects(nodeNameField, r.node) {
			return yes()
		}
		if r.a.GetName() != "" {
			return r.related(r.own)
		}
		return no("can only list/watch pods with spec.nodeName field selector")
	}
	if rbac.Allowed(r.a, r.rules) {
		return yes()
	}
	return no("")
}

// selects says whether the request's field selector demands field=value.
func (r *judge) selects(field, value string) bool {
	requirements, err := r.a.GetFieldSelector()
	if err != nil {
		return false
	}
	for _, q := range requirements {
		if q.Field == field && (q.Operator == selection.Equals || q.Operator == selection.DoubleEquals) && q.Value == value {
			return true
		}
	}
	return false
}

var _ authorizer.UnconditionalAuthorizer = (*Authorizer)(nil)

// RulesFor implements authorizer.RuleResolver: what a node may do depends on
// what runs on it and cannot be listed.
func (z *Authorizer) RulesFor(_ context.Context, u user.Info, _ string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if _, isNode := Name(u); isNode {
		return nil, nil, true, errors.New("node authorizer does not support user rule resolution")
	}
	return nil, nil, false, nil
}
