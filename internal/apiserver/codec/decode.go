// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// Target is what a body is decoded into.
type Target struct {
	// GVK is expected, and assumed where the body does not say.
	GVK schema.GroupVersionKind
	// New returns an empty object of it.
	New func() runtime.Object
	// Accepts says which other versions the body may be in, with their types;
	// nil accepts none.
	Accepts func(schema.GroupVersionKind) func() runtime.Object
	// Known says whether a kind exists at all; it picks the error.
	Known func(schema.GroupVersionKind) bool
	// Custom marks unstructured objects; Coerce makes them fit their schema
	// (see api.Version).
	Custom bool
	Coerce func(api.Object, bool) ([]string, error)
}

// TargetOf returns the target of a kind's own objects in version s.
func TargetOf(kinds *request.Kinds, s *request.Served) Target {
	return Target{
		GVK:    s.GVK,
		New:    func() runtime.Object { return s.Version.New() },
		Known:  func(gvk schema.GroupVersionKind) bool { return kinds.Kind(gvk) != nil },
		Custom: s.Kind.Custom, Coerce: s.Version.Coerce,
	}
}

// Decode reads a body. strict are the complaints of strict decoding (unknown
// and duplicate fields); err is a 400.
func Decode(body []byte, format Format, t Target, strictly bool) (obj runtime.Object, strict []error, err error) {
	if format == Protobuf {
		obj, err = decodeProtobuf(body, t)
		return obj, nil, err
	}
	data := body
	if format == YAML {
		data, err = yaml.YAMLToJSON(body)
		if err != nil {
			return nil, nil, unrecognized(t, err, body)
		}
		if strictly {
			if _, yamlErr := yaml.YAMLToJSONStrict(body); yamlErr != nil {
				strict = append(strict, yamlErr)
			}
		}
	}
	gvk, err := interpret(data)
	if err != nil {
		return nil, nil, unrecognized(t, err, body)
	}
	if t.Custom && gvk.Kind == "" {
		return nil, nil, unrecognized(t, runtime.NewMissingKindErr(string(data)), body)
	}
	if gvk, err = t.match(gvk, body); err != nil {
		return nil, nil, err
	}
	newObject := t.New
	if gvk != t.GVK && t.Accepts != nil {
		newObject = t.Accepts(gvk)
	}
	obj, more, err := DecodeJSON(data, gvk, newObject, t.Custom, strictly)
	if err != nil {
		return nil, nil, cannotBeHandled(t, gvk, err)
	}
	strict = append(strict, more...)
	if t.Custom && gvk.Kind != t.GVK.Kind {
		return nil, nil, wrongKind(t, gvk, obj)
	}
	more, err = Coerce(t.Coerce, obj)
	if err != nil {
		return nil, nil, cannotBeHandled(t, gvk, err)
	}
	return obj, append(strict, more...), nil
}

// wrongKind refuses a custom object of another kind, as its validation would.
func wrongKind(t Target, gvk schema.GroupVersionKind, obj runtime.Object) error {
	name := ""
	if o, ok := obj.(metav1.Object); ok {
		name = o.GetName()
	}
	return apierrors.NewInvalid(gvk.GroupKind(), name, field.ErrorList{
		field.Invalid(field.NewPath("kind"), gvk.Kind, "must be "+t.GVK.Kind),
	})
}

// Coerce makes a custom object fit its schema and returns the complaints of
// strict decoding. coerce may be nil.
func Coerce(coerce func(api.Object, bool) ([]string, error), obj runtime.Object) (strict []error, err error) {
	o, ok := obj.(api.Object)
	if coerce == nil || !ok {
		return nil, nil
	}
	unknown, err := coerce(o, true)
	for _, path := range unknown {
		strict = append(strict, fmt.Errorf("unknown field %q", path))
	}
	return strict, err
}

// DecodeJSON reads JSON into a new object of gvk, whatever type the document
// names itself. The error is the decoder's own.
func DecodeJSON(data []byte, gvk schema.GroupVersionKind, newObject func() runtime.Object, custom, strictly bool) (obj runtime.Object, strict []error, err error) {
	var into any
	content := map[string]any{}
	if custom {
		into = &content
	} else {
		obj = newObject()
		into = obj
	}
	if strictly {
		strict, err = kjson.UnmarshalStrict(data, into)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(data, into)
	}
	if err != nil {
		return nil, nil, err
	}
	if custom {
		obj = &unstructured.Unstructured{Object: content}
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, strict, nil
}

// interpret finds apiVersion and kind.
func interpret(data []byte) (schema.GroupVersionKind, error) {
	var meta struct {
		APIVersion string `json:"apiVersion,omitempty"`
		Kind       string `json:"kind,omitempty"`
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		return schema.GroupVersionKind{}, fmt.Errorf("couldn't get version/kind; json parse error: %v", err)
	}
	gv, err := schema.ParseGroupVersion(meta.APIVersion)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	if gv.Version == "" && gv.Group != "" {
		return schema.GroupVersionKind{}, runtime.NewMissingVersionErr(string(data))
	}
	return gv.WithKind(meta.Kind), nil
}

// every says whether upstream registers a kind in each group's version: the
// options of the verbs and the like.
func every(kind string) bool {
	switch kind {
	case "ListOptions", "GetOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "DeleteOptions", "WatchEvent":
		return true
	}
	return false
}

// exists says whether upstream's scheme has a kind, served or not.
func (t Target) exists(gvk schema.GroupVersionKind) bool {
	if t.Known == nil {
		return false
	}
	if t.Known(gvk) {
		return true
	}
	if gvk.Group == "" && gvk.Version == "v1" {
		switch gvk.Kind {
		case "List", "Status", "APIGroup", "APIGroupList", "APIResourceList", "APIVersions":
			return true
		}
	}
	if single, ok := strings.CutSuffix(gvk.Kind, "List"); ok && t.Known(gvk.GroupVersion().WithKind(single)) {
		return true
	}
	return every(gvk.Kind) && t.Known(gvk.GroupVersion().WithKind(t.GVK.Kind))
}

// match fills what the body left out and judges whether it may be handled.
func (t Target) match(gvk schema.GroupVersionKind, body []byte) (schema.GroupVersionKind, error) {
	if gvk.Kind == "" {
		gvk.Kind = t.GVK.Kind
	}
	if gvk.Version == "" && !t.Custom {
		gvk.Group, gvk.Version = t.GVK.Group, t.GVK.Version
	}
	switch {
	case gvk == t.GVK:
		return gvk, nil
	case t.Custom && gvk.GroupVersion() == t.GVK.GroupVersion():
		return gvk, nil // refused when its name is known
	case t.Custom:
		return gvk, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)",
			gvk.GroupVersion(), t.GVK.GroupVersion()))
	case t.Accepts != nil && t.Accepts(gvk) != nil:
		return gvk, nil
	case gvk.Kind == t.GVK.Kind && gvk.GroupVersion() != t.GVK.GroupVersion() && t.Known != nil && t.Known(gvk):
		return gvk, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)",
			gvk.GroupVersion(), t.GVK.GroupVersion()))
	case t.exists(gvk):
		return gvk, cannotBeHandled(t, gvk, unknownConversion(t, gvk))
	}
	return gvk, cannotBeHandled(t, gvk, NotRegistered(gvk))
}

// InternalName is the package of upstream's internal types of a group, which
// its messages name.
func InternalName(group string) string {
	if group == "" || group == "events.k8s.io" {
		return "core"
	}
	name, _, _ := strings.Cut(group, ".")
	return name
}

// NotRegistered words the error upstream's scheme has for an unknown kind, down
// to the line of its source: clients have been seen to match it.
func NotRegistered(gvk schema.GroupVersionKind) error {
	return fmt.Errorf("no kind %q is registered for version %q in scheme \"pkg/runtime/scheme.go:111\"", gvk.Kind, gvk.GroupVersion().String())
}

func cannotBeHandled(t Target, gvk schema.GroupVersionKind, err error) error {
	if gvk.Kind == "" {
		return apierrors.NewBadRequest(err.Error())
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", gvk.Kind, gvk.Version, t.GVK.Kind, err))
}

func unrecognized(t Target, err error, body []byte) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", t.GVK.Kind, err, summarize(body)))
}

// Mismatch returns why a document cannot be read as the target's kind, or nil.
func (t Target) Mismatch(document []byte) error {
	gvk, err := interpret(document)
	if err != nil || gvk == t.GVK || t.Custom {
		return err
	}
	if t.exists(gvk) {
		return unknownConversion(t, gvk)
	}
	return NotRegistered(gvk)
}

func unknownConversion(t Target, gvk schema.GroupVersionKind) error {
	return fmt.Errorf("converting (%s.%s) to (%s.%s): unknown conversion", gvk.Version, gvk.Kind, InternalName(t.GVK.Group), t.GVK.Kind)
}

// StrictError is the answer to unknown or duplicate fields where they are not
// to be let pass.
func StrictError(t Target, strict []error) error {
	return cannotBeHandled(t, t.GVK, runtime.NewStrictDecodingError(strict))
}

// summarize shows the beginning of a body in an error.
func summarize(body []byte) string {
	const limit = 30
	switch {
	case len(body) == 0:
		return "<empty>"
	case body[0] == '{' && len(body) > limit:
		return string(body[:limit]) + " ..."
	case body[0] == '{':
		return string(body)
	case len(body) > limit:
		return fmt.Sprintf("%x ...", body[:limit])
	}
	return fmt.Sprintf("%x", body)
}

func notProtobuf() error {
	return fmt.Errorf("provided data does not appear to be a protobuf message, expected prefix %v", protobufPrefix)
}

func decodeProtobuf(body []byte, t Target) (runtime.Object, error) {
	raw, ok := bytes.CutPrefix(body, protobufPrefix)
	if !ok {
		return nil, unrecognized(t, notProtobuf(), body)
	}
	var u runtime.Unknown
	if err := u.Unmarshal(raw); err != nil {
		return nil, unrecognized(t, err, body)
	}
	gv, err := schema.ParseGroupVersion(u.APIVersion)
	if err != nil {
		return nil, unrecognized(t, err, body)
	}
	gvk, err := t.match(gv.WithKind(u.Kind), body)
	if err != nil {
		return nil, err
	}
	newObject := t.New
	if gvk != t.GVK && t.Accepts != nil {
		newObject = t.Accepts(gvk)
	}
	obj := newObject()
	m, ok := obj.(protoMessage)
	if !ok {
		return nil, cannotBeHandled(t, gvk, fmt.Errorf("%T has no protobuf form", obj))
	}
	if err := m.Unmarshal(u.Raw); err != nil {
		return nil, cannotBeHandled(t, gvk, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// DecodeObject is Decode for objects with metadata.
func DecodeObject(body []byte, format Format, t Target, strictly bool) (api.Object, []error, error) {
	obj, strict, err := Decode(body, format, t, strictly)
	if err != nil {
		return nil, nil, err
	}
	o, ok := obj.(api.Object)
	if !ok {
		return nil, nil, errors.New("decoded object has no metadata")
	}
	return o, strict, nil
}

// DecodeOptions reads DeleteOptions from a body, in the group's own version
// or meta/v1.
func DecodeOptions(body []byte, format Format, into *metav1.DeleteOptions) error {
	t := Target{
		GVK: metav1.SchemeGroupVersion.WithKind("DeleteOptions"),
		New: func() runtime.Object { return into },
	}
	t.Accepts = func(gvk schema.GroupVersionKind) func() runtime.Object {
		if gvk.Kind == t.GVK.Kind {
			return t.New
		}
		return nil
	}
	_, _, err := Decode(body, format, t, false)
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		// Options are not named in errors.
		if _, cause, ok := strings.Cut(status.ErrStatus.Message, "cannot be handled as a DeleteOptions: "); ok {
			return apierrors.NewBadRequest(cause)
		}
		if format == Protobuf && !bytes.HasPrefix(body, protobufPrefix) {
			return apierrors.NewBadRequest(notProtobuf().Error())
		}
	}
	return err
}
