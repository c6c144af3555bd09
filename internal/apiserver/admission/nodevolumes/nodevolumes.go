// SPDX-License-Identifier: Apache-2.0

// Package nodevolumes lets nodes write PersistentVolumes of their own
// directories only. Nodes that join a cluster make the volumes of the default
// StorageClass as themselves, and a node must not reach other nodes' files by
// that. Upstream gives nodes no right to write volumes at all. The API server
// lists it among the admission plug-ins.
package nodevolumes

import (
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "NodeVolumes"

// Plugin refuses. It needs nothing.
type Plugin struct{}

var _ admission.Validator = Plugin{}

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool { return op != admission.Connect }

var errForeign = errors.New("a node may only write volumes of its own directories")

// Validate implements admission.Validator.
func (Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Resource.Group != "" || a.Resource.Resource != "persistentvolumes" || a.User == nil || !slices.Contains(a.User.GetGroups(), user.NodesGroup) {
		return nil
	}
	node, ok := strings.CutPrefix(a.User.GetName(), "system:node:")
	if !ok || !own(a.Object, node) || !own(a.Old, node) {
		return a.Forbidden(errForeign)
	}
	return nil
}

// own says whether a volume, if there is one, is a directory that the node's
// pods alone use.
func own(o runtime.Object, node string) bool {
	if o == nil {
		return true
	}
	v, ok := o.(*corev1.PersistentVolume)
	if !ok || v.Spec.Local == nil || v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil || len(v.Spec.NodeAffinity.Required.NodeSelectorTerms) == 0 {
		return false
	}
	for _, term := range v.Spec.NodeAffinity.Required.NodeSelectorTerms {
		if !slices.ContainsFunc(term.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			return e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 && e.Values[0] == node
		}) {
			return false
		}
	}
	return true
}
