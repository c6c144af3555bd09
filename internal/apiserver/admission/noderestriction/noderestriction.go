// SPDX-License-Identifier: Apache-2.0

// Package noderestriction is the admission plug-in NodeRestriction: it confines
// a kubelet's credentials to its own node. Beyond what the node authorizer may
// decide by names, it looks at what a request would write: a node changes only
// itself and its own pods, and neither its taints nor labels that steer
// workloads; it asks for tokens of accounts only for pods that run on it.
//
// The API server's admission chain calls it. Requests of anybody but nodes cost
// one look at the user's groups.
package noderestriction

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "NodeRestriction"

const userPrefix = "system:node:"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	read       admission.Reader
	authorizer authorizer.Authorizer
}

var _ admission.Mutator = (*Plugin)(nil)

// New returns the plug-in; it reads from read, and asks may for the audiences
// that a node may name without a pod that does.
func New(read admission.Reader, may authorizer.Authorizer) *Plugin {
	return &Plugin{read: read, authorizer: may}
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op != admission.Connect }

// nodeOf returns which node a user is.
func nodeOf(who user.Info) (name string, is bool) {
	if who == nil || !strings.HasPrefix(who.GetName(), userPrefix) || !slices.Contains(who.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return who.GetName()[len(userPrefix):], true
}

// Mutate implements admission.Mutator. It changes nothing: it stands there, as
// upstream's does, to refuse before others change what a node sent.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	node, is := nodeOf(a.User)
	if !is {
		return nil
	}
	if node == "" {
		return a.Forbidden(fmt.Errorf("could not determine node from user %q", a.User.GetName()))
	}
	switch err := p.judge(ctx, a, node).(type) {
	case nil:
		return nil
	case *apierrors.StatusError:
		return err // what is asked about is not there
	case unsettled:
		return err.error
	default:
		return a.Forbidden(err)
	}
}

// unsettled is an error that may come from a cache that lags behind: it is
// answered as a failure, so that kubelets try again, not as a refusal.
type unsettled struct{ error }

func (p *Plugin) judge(ctx context.Context, a *admission.Attributes, node string) error {
	switch a.Resource.Group {
	case "":
		return p.judgeCore(ctx, a, node)
	case "coordination.k8s.io":
		if a.Resource.Resource == "leases" {
			return judgeLease(a, node)
		}
	case "storage.k8s.io":
		if a.Resource.Resource == "csinodes" {
			return judgeCSINode(a, node)
		}
	case "resource.k8s.io":
		if a.Resource.Resource == "resourceslices" {
			return judgeSlice(a, node)
		}
	case "certificates.k8s.io":
		switch a.Resource.Resource {
		case "podcertificaterequests":
			return p.judgePodCertificate(ctx, a, node)
		case "certificatesigningrequests":
			return judgeCertificate(a, node)
		}
	}
	return nil
}

func (p *Plugin) judgeCore(ctx context.Context, a *admission.Attributes, node string) error {
	switch a.Resource.Resource {
	case "pods":
		switch a.Subresource {
		case "":
			return p.judgePod(ctx, a, node)
		case "status":
			return judgePodStatus(a, node)
		case "eviction":
			return p.judgeEviction(ctx, a, node)
		}
		return fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.Subresource)
	case "nodes":
		return judgeNode(a, node)
	case "persistentvolumeclaims":
		if a.Subresource != "status" {
			return errors.New("may only update PVC status")
		}
		return judgeClaimStatus(a, node)
	case "serviceaccounts":
		if a.Operation == admission.Create && a.Subresource == "token" {
			return p.judgeToken(ctx, a, node)
		}
	}
	return nil
}

// nameOf returns the name of what a request writes.
func nameOf(a *admission.Attributes) string {
	if obj, ok := a.Object.(api.Object); ok && a.Operation == admission.Create {
		return obj.GetName()
	}
	return a.Name
}

func judgeCSINode(a *admission.Attributes, node string) error {
	if nameOf(a) != node {
		return errors.New("can only access CSINode with the same name as the requesting node")
	}
	if a.Subresource == "status" {
		return errors.New("CSIVolumeHealth feature gate is disabled")
	}
	return nil
}

func judgeLease(a *admission.Attributes, node string) error {
	if a.Namespace != corev1.NamespaceNodeLease {
		return fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	if nameOf(a) != node {
		return errors.New("can only access node lease with the same name as the requesting node")
	}
	return nil
}

// pod returns a stored pod, or NotFound.
func (p *Plugin) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod, found, err := admission.Find[*corev1.Pod](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Pod"), namespace, name)
	if err == nil && !found {
		err = apierrors.NewNotFound(corev1.Resource("pod"), name)
	}
	return pod, err
}
