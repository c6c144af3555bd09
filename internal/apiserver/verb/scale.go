// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"kaji/internal/api"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/patch"
	"kaji/internal/apiserver/request"
)

var scaleGVK = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// scaleOf returns the Scale of an object, with the object's metadata.
func scaleOf(s *request.Served, obj api.Object) (*autoscalingv1.Scale, error) {
	scale, err := s.Scale().Get(obj)
	if _, none := err.(api.ErrNoReplicas); none {
		return nil, apierrors.NewInternalError(err)
	}
	if _, worded := err.(apierrors.APIStatus); worded {
		return nil, err
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	describe(scale, obj)
	return scale, nil
}

// describe gives a Scale the metadata of its object.
func describe(scale *autoscalingv1.Scale, obj api.Object) {
	scale.SetGroupVersionKind(scaleGVK)
	scale.ObjectMeta = metav1.ObjectMeta{
		Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
		ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
	}
}

// noReplicas stands for a field that is not there, while a Scale changes.
const noReplicas = math.MinInt32

// scaleBefore is the Scale that a change begins with: the replicas may be
// missing, and the change has to set them.
func scaleBefore(s *request.Served, obj api.Object) (*autoscalingv1.Scale, error) {
	scale, err := s.Scale().Get(obj)
	if _, none := err.(api.ErrNoReplicas); !none {
		return scaleOf(s, obj)
	}
	scale.Spec.Replicas = noReplicas
	describe(scale, obj)
	return scale, nil
}

func (v *Verbs) scale(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx, cancel := deadline(r)
	defer cancel()
	var scale *autoscalingv1.Scale
	var accept codec.Accept
	var err error
	switch in.Verb {
	case "get":
		if accept, err = codec.Negotiate(r, in.Kind.Custom); err != nil {
			return err
		}
		scale, err = v.GetScale(ctx, in)
	case "update":
		if accept, err = codec.Negotiate(r, in.Kind.Custom); err != nil {
			return err
		}
		opts, optsErr := updateOptions(r)
		if optsErr != nil {
			return optsErr
		}
		obj, decodeErr := decode(r, v.scaleTarget(), opts.FieldValidation)
		if decodeErr != nil {
			return scaleFault(in, decodeErr)
		}
		if gvk := obj.GetObjectKind().GroupVersionKind(); in.Kind.Custom && gvk != scaleGVK && !gvk.Empty() {
			return errNoScale()
		}
		scale, err = v.UpdateScale(ctx, in, obj.(*autoscalingv1.Scale), opts)
	case "patch":
		p, a, patchErr := readPatch(r, in.Kind.Custom)
		if patchErr != nil {
			return patchErr
		}
		accept = a
		scale, err = v.PatchScale(ctx, in, p)
	default:
		return notSupported(in)
	}
	if err != nil {
		return err
	}
	served := scaleServed(in.Kind.Custom)
	view := &request.Info{RequestInfo: in.RequestInfo, Served: served}
	return v.respondEntry(w, r, view, http.StatusOK, accept, &cache.Entry{Object: scale})
}

// scaleFault words what is wrong with a body that should be a Scale: custom
// resources know of one version of it, and not what is wrong with others.
func scaleFault(in *request.Info, err error) error {
	if in.Kind.Custom && strings.Contains(err.Error(), " cannot be handled as a Scale: ") {
		return errNoScale()
	}
	return err
}

func errNoScale() error {
	return apierrors.NewBadRequest(`no kind is registered for the type v1.Scale in scheme "pkg/runtime/scheme.go:111"`)
}

// unapplied is why the Scale of a custom resource cannot be applied, which
// upstream's conversion hinders; nil where it can.
func unapplied(in *request.Info) func(live, applied runtime.Object, err error) error {
	if !in.Kind.Custom {
		return nil
	}
	return func(live, applied runtime.Object, err error) error {
		failed := "failed to convert new object (" + objectNames(applied) + "; " + scaleGVK.String() + ") to proper version"
		if m, none := meta.Accessor(live); none == nil && len(m.GetManagedFields()) == 0 {
			failed = "failed to create manager for existing fields: failed to convert live object (/; " + scaleGVK.String() + ") to proper version"
		} else if err != nil {
			return err // such as a conflict
		}
		return errors.New(failed + ": request to convert CR to an invalid group/version: " + scaleGVK.GroupVersion().String())
	}
}

// objectNames are an object's namespace and name as a message has them.
func objectNames(obj runtime.Object) string {
	m, err := meta.Accessor(obj)
	if err != nil {
		return "/"
	}
	return m.GetNamespace() + "/" + m.GetName()
}

// scaleColumns are the columns of a Scale.
func scaleColumns(custom bool) []metav1.TableColumnDefinition {
	meta := metav1.ObjectMeta{}.SwaggerDoc()
	spec, status := autoscalingv1.ScaleSpec{}.SwaggerDoc(), autoscalingv1.ScaleStatus{}.SwaggerDoc()
	columns := []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Description: meta["name"]},
		{Name: "Desired", Type: "integer", Description: spec["replicas"]},
		{Name: "Available", Type: "integer", Description: status["replicas"]},
		{Name: "Age", Type: "string", Description: meta["creationTimestamp"]},
	}
	if custom {
		columns[0].Format, columns[3].Type = "name", "date"
		columns[1].Description, columns[2].Description = "Number of desired replicas", "Number of actual replicas"
	}
	return columns
}

// scaleServed is Scale as if it were a resource, for showing it.
func scaleServed(custom bool) *request.Served {
	kind := &api.Kind{
		Group: autoscalingv1.GroupName, Name: "Scale", Resource: "scales", Namespaced: true,
		Versions: []api.Version{{GroupVersion: autoscalingv1.SchemeGroupVersion}},
		Storage:  autoscalingv1.SchemeGroupVersion,
		Rules: api.For[*autoscalingv1.Scale]{
			Columns: scaleColumns(custom),
			Cells: func(s *autoscalingv1.Scale) []any {
				age := "<unknown>"
				if !s.CreationTimestamp.IsZero() {
					age = duration.HumanDuration(time.Since(s.CreationTimestamp.Time))
				}
				return []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), age}
			},
		}.Rules(),
	}
	return request.ServedOf(kind, &kind.Versions[0])
}

func (v *Verbs) scaleTarget() codec.Target {
	return codec.Target{
		Known: v.known,
		GVK:   scaleGVK,
		New:   func() runtime.Object { return &autoscalingv1.Scale{} },
		Accepts: func(gvk schema.GroupVersionKind) func() runtime.Object {
			// Scales of old versions differ only in how they show the selector.
			if gvk.Kind == "Scale" && (gvk.Group == "apps" || gvk.Group == "extensions") {
				return func() runtime.Object { return &autoscalingv1.Scale{} }
			}
			return nil
		},
	}
}

// GetScale returns the Scale of the object the request names.
func (v *Verbs) GetScale(ctx context.Context, in *request.Info) (*autoscalingv1.Scale, error) {
	entry, err := v.Objects.Get(ctx, in.Served, in.ObjectNamespace(), in.Name, "")
	if err != nil {
		return nil, err
	}
	return scaleOf(in.Served, entry.Object)
}

// UpdateScale replaces the Scale of the object the request names.
func (v *Verbs) UpdateScale(ctx context.Context, in *request.Info, scale *autoscalingv1.Scale, opts *metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	audit.Request(ctx, in, scale)
	if err := object.MatchNamespace(scale, in.ObjectNamespace()); err != nil {
		return nil, err
	}
	if err := object.MatchName(scale, in.ObjectNamespace(), in.Name); err != nil {
		return nil, err
	}
	return v.changeScale(ctx, in, opts, func(_ context.Context, _ *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		return scale.DeepCopy(), nil
	}, object.Manager(opts.FieldManager, in.UserAgent), scale.UID)
}

// PatchScale patches the Scale of the object the request names.
func (v *Verbs) PatchScale(ctx context.Context, in *request.Info, p PatchRequest) (*autoscalingv1.Scale, error) {
	audit.Patch(ctx, p.Data)
	if err := invalidOptions("PatchOptions", validation.ValidatePatchOptions(p.Options, p.Type)); err != nil {
		return nil, err
	}
	job := &patch.Patch{Type: p.Type, Data: p.Data, Options: p.Options, UserAgent: in.UserAgent}
	if err := job.Check(); err != nil {
		return nil, err
	}
	manager, err := v.scaleManager(in)
	if err != nil {
		return nil, err
	}
	t := patch.Target{
		Body:      v.scaleTarget(),
		GVK:       scaleGVK,
		New:       func() runtime.Object { return &autoscalingv1.Scale{} },
		ToVersion: func(o runtime.Object) (runtime.Object, error) { return o, nil },
		ToHub:     func(o runtime.Object) (runtime.Object, error) { return o, nil },
		Manager:   manager,
		Unapplied: unapplied(in),
		Track: func(old, patched runtime.Object, by string) (runtime.Object, error) {
			return manager.UpdateNoErrors(old, patched, by), nil
		},
	}
	return v.changeScale(ctx, in, p.UpdateOptions(), func(ctx context.Context, old *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		patched, err := job.Apply(ctx, t, old)
		if err != nil {
			return nil, err
		}
		scale := patched.(*autoscalingv1.Scale)
		audit.Request(ctx, in, scale)
		if err := object.MatchNamespace(scale, in.ObjectNamespace()); err != nil {
			return nil, err
		}
		return scale, object.MatchName(scale, in.ObjectNamespace(), in.Name)
	}, "", "")
}

// changeScale writes the Scale that change makes of the present one into the
// object. manager, when set, is recorded as the owner of what changed, and uid,
// when set, must be the object's.
func (v *Verbs) changeScale(ctx context.Context, in *request.Info, opts *metav1.UpdateOptions, change func(context.Context, *autoscalingv1.Scale) (*autoscalingv1.Scale, error), manager string, uid types.UID) (*autoscalingv1.Scale, error) {
	fields, err := v.scaleManager(in)
	if err != nil {
		return nil, err
	}
	apply := func(ctx context.Context, old api.Object) (api.Object, error) {
		before, err := scaleBefore(in.Served, old)
		if err != nil {
			return nil, err
		}
		entries := managedfields.NewScaleHandler(old.GetManagedFields(), in.GVR().GroupVersion(), scalePaths(in.Kind))
		if before.ManagedFields, err = entries.ToSubresource(); err != nil {
			return nil, err
		}
		scale, err := change(ctx, before)
		if err != nil {
			return nil, err
		}
		if manager != "" {
			scale.SetGroupVersionKind(scaleGVK)
			scale = fields.UpdateNoErrors(before, scale, manager).(*autoscalingv1.Scale)
		}
		if scale.Spec.Replicas == noReplicas {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the spec replicas field %q cannot be empty", "."+in.Scale().Path))
		}
		// A custom kind's own validation judges the field the scale stands for.
		if errs := validateScale(scale); len(errs) > 0 && !in.Kind.Custom {
			return nil, apierrors.NewInvalid(scaleGVK.GroupKind(), scale.Name, errs)
		}
		obj := old.DeepCopyObject().(api.Object)
		if err := in.Scale().Set(obj, scale.Spec.Replicas); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if scale.ResourceVersion != "" {
			obj.SetResourceVersion(scale.ResourceVersion)
		}
		if scale.UID != "" {
			obj.SetUID(scale.UID)
		}
		managed, err := entries.ToParent(scale.ManagedFields)
		if err != nil {
			return nil, err
		}
		obj.SetManagedFields(managed)
		return obj, nil
	}
	result, _, err := v.Objects.Update(ctx, in, object.Change{UID: uid, Apply: apply, View: scaleView(in.Served), Facade: scaleFacade(in.Served)}, opts)
	if err != nil {
		return nil, err
	}
	return scaleOf(in.Served, result)
}

// scaleFacade shows admission the Scale of an object.
func scaleFacade(s *request.Served) *object.Facade {
	return &object.Facade{
		Kind: scaleGVK,
		Show: func(obj api.Object) (api.Object, error) {
			scale, err := scaleBefore(s, obj)
			if err == nil && scale.Spec.Replicas == noReplicas {
				scale.Spec.Replicas = 0 // as it would be without the field
			}
			return scale, err
		},
		Take: func(part, obj api.Object) error {
			scale, ok := part.(*autoscalingv1.Scale)
			if !ok {
				return apierrors.NewInternalError(fmt.Errorf("admission made a %T of a Scale", part))
			}
			return s.Scale().Set(obj, scale.Spec.Replicas)
		},
	}
}

// scaleView is a write of the whole object that creates nothing.
func scaleView(s *request.Served) *api.Subresource {
	return &api.Subresource{
		Name:             "scale",
		PrepareForUpdate: s.Rules().PrepareForUpdate,
		ValidateUpdate:   s.Rules().ValidateUpdate,
	}
}

func validateScale(s *autoscalingv1.Scale) field.ErrorList {
	if s.Spec.Replicas < 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0").WithOrigin("minimum")}
	}
	return nil
}

// scalePaths are where each version of a kind keeps its replicas.
func scalePaths(kind *api.Kind) managedfields.ResourcePathMappings {
	paths := managedfields.ResourcePathMappings{}
	for i := range kind.Versions {
		served := request.ServedOf(kind, &kind.Versions[i])
		scale := served.Scale()
		if scale == nil {
			continue
		}
		var path fieldpath.Path
		for name := range strings.SplitSeq(strings.TrimPrefix(scale.Path, "."), ".") {
			path = append(path, fieldpath.MakePathOrDie(name)...)
		}
		paths[kind.Versions[i].GroupVersion.String()] = path
	}
	return paths
}

func (v *Verbs) scaleManager(in *request.Info) (*managedfields.FieldManager, error) {
	m, err := v.Objects.ViewFieldManager(in.Served, "scale", scaleGVK, func() runtime.Object { return &autoscalingv1.Scale{} })
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("schema of Scale: %w", err))
	}
	return m, nil
}
