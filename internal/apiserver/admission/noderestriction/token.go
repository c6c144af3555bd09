// SPDX-License-Identifier: Apache-2.0

package noderestriction

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/admission"
	"kaji/internal/client"
)

// judgeToken lets a node ask for tokens that are bound to its own pods, for the
// audiences these name.
func (p *Plugin) judgeToken(ctx context.Context, a *admission.Attributes, node string) error {
	request, ok := a.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return unexpected(a.Object)
	}
	ref := request.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return errors.New("node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return errors.New("node requested token with a pod binding without a uid")
	}
	pod, err := p.pod(ctx, a.Namespace, ref.Name)
	switch {
	case err != nil:
		return err
	case ref.UID != pod.UID:
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	case pod.Spec.NodeName != node:
		return errors.New("node requested token bound to a pod scheduled on a different node")
	}
	return p.judgeAudience(ctx, a, request.Spec.Audiences, pod)
}

func (p *Plugin) judgeAudience(ctx context.Context, a *admission.Attributes, audiences []string, pod *corev1.Pod) error {
	if len(audiences) > 1 {
		return errors.New("node may only request 0 or 1 audiences")
	}
	audience := ""
	if len(audiences) == 1 {
		audience = audiences[0]
	}
	named, err := p.names(ctx, pod, audience)
	if err != nil {
		return fmt.Errorf("error validating audience %q: %w", audience, err)
	}
	if named {
		return nil
	}
	decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.User, Verb: "request-serviceaccounts-token-audience", ResourceRequest: true,
		Namespace: a.Namespace, APIGroup: a.Resource.Group, APIVersion: a.Resource.Version, Resource: audience, Name: a.Name,
	})
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return fmt.Errorf("error authorizing %s to request tokens for audience %q: %w", a.User.GetName(), audience, err)
	}
	return fmt.Errorf("%s is not authorized to request tokens for audience %q", a.User.GetName(), audience)
}

// names says whether a pod's volumes need tokens of an audience. It fails only if
// none does that can be looked at.
func (p *Plugin) names(ctx context.Context, pod *corev1.Pod, audience string) (bool, error) {
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
		}) {
			return true, nil
		}
		driver, err := p.driver(ctx, pod, v)
		if err != nil {
			errs = append(errs, err)
		}
		if driver == "" {
			continue
		}
		csi, err := have[*storagev1.CSIDriver](ctx, p.read, storagev1.SchemeGroupVersion.WithKind("CSIDriver"), "", driver)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if slices.ContainsFunc(csi.Spec.TokenRequests, func(t storagev1.TokenRequest) bool { return t.Audience == audience }) {
			return true, nil
		}
	}
	return false, utilerrors.NewAggregate(errs)
}

// have reads an object that has to be there.
func have[T client.Object](ctx context.Context, read admission.Reader, kind schema.GroupVersionKind, namespace, name string) (T, error) {
	obj, found, err := admission.Find[T](ctx, read, kind, namespace, name)
	if err == nil && !found {
		err = apierrors.NewNotFound(schema.GroupResource{Group: kind.Group, Resource: strings.ToLower(kind.Kind)}, name)
	}
	return obj, err
}

// driver returns the CSI driver that mounts a volume, "" when none does.
func (p *Plugin) driver(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	name := ""
	switch {
	case v.CSI != nil:
		return v.CSI.Driver, nil
	case v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil:
		name = pod.Name + "-" + v.Name
	case v.PersistentVolumeClaim != nil:
		name = v.PersistentVolumeClaim.ClaimName
	default:
		return "", nil
	}
	claim, err := have[*corev1.PersistentVolumeClaim](ctx, p.read, corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), pod.Namespace, name)
	if err != nil {
		return "", err
	}
	pv, err := have[*corev1.PersistentVolume](ctx, p.read, corev1.SchemeGroupVersion.WithKind("PersistentVolume"), "", claim.Spec.VolumeName)
	if err != nil || pv.Spec.CSI == nil {
		return "", err
	}
	return pv.Spec.CSI.Driver, nil
}
