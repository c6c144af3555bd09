// SPDX-License-Identifier: Apache-2.0

// Package patch applies patches to objects: JSON patch, JSON merge patch,
// strategic merge patch and server-side apply, each to the object in the
// version of the request.
//
// The verb patch calls it; the object layer calls back with the state to
// change. It does not read or write the store.
package patch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"

	"kaji/internal/api"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
)

// maxOperations bounds a JSON patch.
const maxOperations = 10000

// Target is the kind of object a patch is applied to: the resource itself, or
// a subresource with a type of its own (Scale).
type Target struct {
	// Body says what kinds a patched document may be of.
	Body codec.Target
	GVK  schema.GroupVersionKind
	// New returns an empty object of the version.
	New func() runtime.Object
	// ToVersion returns the object layer's form of an object in the version,
	// ToHub the reverse.
	ToVersion func(runtime.Object) (runtime.Object, error)
	ToHub     func(runtime.Object) (runtime.Object, error)
	Custom    bool
	Coerce    func(api.Object, bool) ([]string, error)
	// Manager keeps managedFields of what is applied, Track of all else.
	Manager *managedfields.FieldManager
	// Unapplied says why what was sent cannot be applied to the live object; it
	// is told what hindered the manager, if anything. Nil where all can.
	Unapplied func(live, applied runtime.Object, err error) error
	Track     func(old, patched runtime.Object, manager string) (runtime.Object, error)
}

// Patch is one patch as it was sent.
type Patch struct {
	Type    types.PatchType
	Data    []byte
	Options *metav1.PatchOptions
	// UserAgent names the manager where the options do not.
	UserAgent string
}

// Types returns the patch types a kind accepts.
func Types(custom bool) []types.PatchType {
	if custom {
		return []types.PatchType{types.JSONPatchType, types.MergePatchType, types.ApplyYAMLPatchType}
	}
	return []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType}
}

// Negotiate reads the type of a patch from the request. The error is a 415.
func Negotiate(r *http.Request, custom bool) (types.PatchType, error) {
	name, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	accepted := Types(custom)
	if slices.Contains(accepted, types.PatchType(name)) {
		return types.PatchType(name), nil
	}
	if !custom { // upstream's router knows the types of the built-in kinds
		return "", &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
			Message: "415: Unsupported Media Type", Details: &metav1.StatusDetails{},
		}}
	}
	names := make([]string, len(accepted))
	for i, t := range accepted {
		names[i] = string(t)
	}
	return "", &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(names, ", "),
	}}
}

// Check refuses what cannot be parsed at all.
func (p *Patch) Check() error {
	if p.Type == types.ApplyYAMLPatchType {
		if _, err := utilyaml.ToJSON(p.Data); err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("error encoding patch: %v", err))
		}
		return nil
	}
	if !json.Valid(p.Data) {
		return apierrors.NewBadRequest("invalid JSON patch")
	}
	return nil
}

// Change returns what the object layer does with a patch of a whole object.
func (p *Patch) Change(objects *object.Objects, in *request.Info) (object.Change, error) {
	manager, err := objects.FieldManager(in.Served, in.Subresource)
	if err != nil {
		return object.Change{}, apierrors.NewInternalError(err)
	}
	t := Target{
		Body:   codec.TargetOf(objects.Kinds, in.Served),
		GVK:    in.GVK,
		New:    func() runtime.Object { return in.Version.New() },
		Custom: in.Kind.Custom, Coerce: in.Version.Coerce,
		ToVersion: func(hub runtime.Object) (runtime.Object, error) {
			obj, err := codec.FromHub(in.Served, hub.(api.Object))
			if err != nil && codec.Asks(in.Served) && hub.(api.Object).GetResourceVersion() != "" {
				// As if it could not be read, which is told of its last state.
				err = fmt.Errorf("object not decodable revision=%s: %w", hub.(api.Object).GetResourceVersion(), err)
			}
			return obj, err
		},
		ToHub: func(obj runtime.Object) (runtime.Object, error) {
			obj.GetObjectKind().SetGroupVersionKind(in.GVK)
			return codec.ToHub(in.Served, obj.(api.Object))
		},
		Manager: manager,
		Track: func(old, patched runtime.Object, manager string) (runtime.Object, error) {
			return objects.TrackChange(in, old.(api.Object), patched.(api.Object), manager)
		},
	}
	return object.Change{
		AllowCreate: p.Type == types.ApplyYAMLPatchType,
		Apply: func(ctx context.Context, old api.Object) (api.Object, error) {
			exists := old.GetUID() != ""
			if !exists && p.Type != types.ApplyYAMLPatchType {
				return nil, apierrors.NewNotFound(in.Served.GVR.GroupResource(), in.Name)
			}
			patched, err := p.Apply(ctx, t, old)
			if err != nil {
				return nil, err
			}
			obj := patched.(api.Object)
			if !exists && obj.GetUID() != "" {
				return nil, apierrors.NewConflict(in.Served.GVR.GroupResource(), in.Name, fmt.Errorf(
					"uid mismatch: the provided object specified uid %s, and no existing object was found", obj.GetUID()))
			}
			if err := object.MatchNamespace(obj, in.ObjectNamespace()); err != nil {
				return nil, err
			}
			return obj, object.MatchName(obj, in.ObjectNamespace(), in.Name)
		},
	}, nil
}

// Apply returns what the patch makes of old, which is not modified.
func (p *Patch) Apply(ctx context.Context, t Target, old runtime.Object) (runtime.Object, error) {
	var patched runtime.Object
	var err error
	switch p.Type {
	case types.JSONPatchType, types.MergePatchType:
		patched, err = p.applyJSON(ctx, t, old)
	case types.StrategicMergePatchType:
		patched, err = p.applyStrategic(ctx, t, old)
	default:
		return p.applyServerSide(ctx, t, old)
	}
	if err != nil {
		return nil, err
	}
	return t.Track(old, patched, object.Manager(p.Options.FieldManager, p.UserAgent))
}

// validation is the directive for unknown and duplicate fields.
func (p *Patch) validation() string {
	if p.Options.FieldValidation == "" {
		return metav1.FieldValidationWarn
	}
	return p.Options.FieldValidation
}

func (p *Patch) strictly() bool { return p.validation() != metav1.FieldValidationIgnore }

// complain warns of strict errors or makes them an error, as asked. shown is
// the value the error names.
func (p *Patch) complain(ctx context.Context, strict []error, shown string) error {
	if len(strict) == 0 || p.validation() == metav1.FieldValidationIgnore {
		return nil
	}
	if p.validation() == metav1.FieldValidationWarn {
		codec.Warn(ctx, strict)
		return nil
	}
	return invalidPatch(shown, runtime.NewStrictDecodingError(strict).Error())
}

func invalidPatch(shown, message string) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{
		field.Invalid(field.NewPath("patch"), shown, message),
	})
}

func (p *Patch) applyJSON(ctx context.Context, t Target, old runtime.Object) (runtime.Object, error) {
	versioned, err := t.ToVersion(old)
	if err != nil {
		return nil, err
	}
	document, err := codec.Encode(versioned, codec.JSON, false)
	if err != nil {
		return nil, err
	}
	document, strict, err := p.edit(document)
	if err != nil {
		return nil, err
	}
	if err := t.Body.Mismatch(document); err != nil {
		return nil, invalidPatch(string(document), err.Error())
	}
	obj, more, err := codec.DecodeJSON(document, t.GVK, t.New, t.Custom, p.strictly())
	if err != nil {
		return nil, invalidPatch(string(document), err.Error())
	}
	if t.Custom {
		if err := sameType(t.GVK, document); err != nil {
			return nil, err
		}
	}
	strict = append(strict, more...)
	if more, err = codec.Coerce(t.Coerce, obj); err != nil {
		return nil, invalidPatch(string(document), err.Error())
	}
	if err := p.complain(ctx, append(strict, more...), string(document)); err != nil {
		return nil, err
	}
	return t.ToHub(obj)
}

// sameType refuses a patch that makes a custom object one of another kind.
func sameType(want schema.GroupVersionKind, document []byte) error {
	var patched metav1.PartialObjectMetadata
	if err := json.Unmarshal(document, &patched); err != nil {
		return nil // no object at all, as the decoder finds
	}
	var errs field.ErrorList
	got := patched.GroupVersionKind()
	if got.Kind != want.Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), got.Kind, "must be "+want.Kind))
	}
	if got.GroupVersion() != want.GroupVersion() {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), got.GroupVersion().String(), "must be "+want.GroupVersion().String()))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(got.GroupKind(), patched.Name, errs)
}

// decoderError words an error of the JSON decoder: it names a Go type, by
// upstream's name for it.
func decoderError(err error) string {
	return strings.ReplaceAll(err.Error(), "patch.operation", "handlers.jsonPatchOp")
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

// edit applies the patch to a document.
func (p *Patch) edit(document []byte) (patched []byte, strict []error, err error) {
	if p.Type == types.MergePatchType {
		if p.strictly() {
			if strict, err = kjson.UnmarshalStrict(p.Data, &map[string]any{}); err != nil {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
			}
		}
		patched, err = jsonpatch.MergePatch(document, p.Data)
		if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		return patched, strict, err
	}
	if p.strictly() {
		if strict, err = kjson.UnmarshalStrict(p.Data, &[]operation{}); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", decoderError(err)))
		}
		for i, e := range strict {
			strict[i] = fmt.Errorf("json patch %v", e)
		}
	}
	operations, err := jsonpatch.DecodePatch(p.Data)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if len(operations) > maxOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(operations)))
	}
	if patched, err = operations.Apply(document); err != nil {
		return nil, nil, unprocessable(err)
	}
	return patched, strict, nil
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}
