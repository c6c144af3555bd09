// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"

	"kaji/internal/apiserver/codec"
)

func (p *Patch) applyStrategic(ctx context.Context, t Target, old runtime.Object) (runtime.Object, error) {
	versioned, err := t.ToVersion(old)
	if err != nil {
		return nil, err
	}
	changes := map[string]any{}
	var strict []error
	if p.strictly() {
		strict, err = kjson.UnmarshalStrict(p.Data, &changes)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(p.Data, &changes)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(strict) == 0 {
		pieces := versioned.DeepCopyObject()
		if mergePieces(reflect.ValueOf(pieces).Elem(), changes) {
			return t.ToHub(pieces)
		}
		// The attempt may have changed what it was given.
		changes = map[string]any{}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(p.Data, &changes); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	original, err := runtime.DefaultUnstructuredConverter.ToUnstructured(versioned)
	if err != nil {
		return nil, err
	}
	merged, err := strategicpatch.StrategicMergeMapPatch(original, changes, t.New())
	if err != nil {
		return nil, mergeError(err)
	}
	obj := t.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, obj, p.strictly()); err != nil {
		more, ok := runtime.AsStrictDecodingError(err)
		if !ok {
			return nil, invalidPatch(fmt.Sprintf("%+v", changes), err.Error())
		}
		strict = append(strict, more.Errors()...)
	}
	if err := p.complain(ctx, strict, fmt.Sprintf("%+v", changes)); err != nil {
		return nil, err
	}
	return t.ToHub(obj)
}

// mergeError words what strategicpatch refuses.
func mergeError(err error) error {
	for _, bad := range []error{
		mergepatch.ErrBadJSONDoc, mergepatch.ErrBadPatchFormatForPrimitiveList, mergepatch.ErrBadPatchFormatForRetainKeys,
		mergepatch.ErrBadPatchFormatForSetElementOrderList, mergepatch.ErrUnsupportedStrategicMergePatchFormat,
	} {
		if errors.Is(err, bad) {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if errors.Is(err, mergepatch.ErrNoListOfLists) || errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys) {
		return unprocessable(err)
	}
	return err
}

// unconverted leaves away what the library says around a webhook's refusal to
// convert what was applied: elsewhere it does not convert that.
func unconverted(err error) error {
	const around, refusal = "failed to convert to unversioned (", "conversion webhook for "
	if text := err.Error(); strings.HasPrefix(text, around) {
		if _, rest, found := strings.Cut(text, ": "+refusal); found {
			return errors.New(refusal + rest)
		}
	}
	return err
}

func (p *Patch) applyServerSide(ctx context.Context, t Target, old runtime.Object) (runtime.Object, error) {
	wanted := &unstructured.Unstructured{}
	var plain bool
	if wanted.Object, plain = plainJSON(p.Data); !plain {
		wanted.Object = map[string]any{}
		if err := yaml.Unmarshal(p.Data, &wanted.Object); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
	}
	force := p.Options.Force != nil && *p.Options.Force
	obj, err := t.Manager.Apply(old, wanted, p.Options.FieldManager, force)
	if t.Unapplied != nil {
		err = t.Unapplied(old, wanted, err)
	}
	if err != nil {
		return nil, unconverted(err)
	}
	if plain || !p.strictly() {
		return obj, nil
	}
	if err := yaml.UnmarshalStrict(p.Data, &map[string]any{}); err != nil {
		if p.validation() == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", err))
		}
		codec.Warn(ctx, []error{err})
	}
	return obj, nil
}

// plainJSON decodes what is to be applied as JSON, which most clients send and
// which costs a part of what YAML does. It is false where YAML might read the
// text otherwise, or would have something to complain of: numbers with a
// fraction, escaped runes, fields that are there twice.
func plainJSON(data []byte) (map[string]any, bool) {
	if !yaml.IsJSONBuffer(data) || !utf8.Valid(data) || bytes.Contains(data, []byte(`\u`)) {
		return nil, false
	}
	obj := map[string]any{}
	strict, err := kjson.UnmarshalStrict(data, &obj)
	return obj, err == nil && len(strict) == 0 && !fractional(obj)
}

// fractional says whether there is a number in v that is no int64.
func fractional(v any) bool {
	switch v := v.(type) {
	case float64:
		return true
	case map[string]any:
		for _, item := range v {
			if fractional(item) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, fractional)
	}
	return false
}
