// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// mergePieces applies a strategic merge patch to a structure, which it changes,
// field by field: a patch names a few fields, and to convert the rest of the
// object would cost more than the patch. It is false for a patch with anything to
// complain of; v is then of no use, and the whole object must be merged, which
// finds the words.
func mergePieces(v reflect.Value, changes map[string]any) bool {
	fields := value.TypeReflectEntryOf(v.Type()).Fields()
	pieces := map[string]map[string]any{}
	for key, change := range changes {
		name := key
		if directive, of, ok := strings.Cut(key, "/"); ok && (directive == "$setElementOrder" || directive == "$deleteFromPrimitiveList") {
			name = of
		}
		if fields[name] == nil {
			return false // unknown, or a directive for the structure itself
		}
		if pieces[name] == nil {
			pieces[name] = map[string]any{}
		}
		pieces[name][key] = change
	}
	for name, piece := range pieces {
		if !mergePiece(v, fields[name], name, piece) {
			return false
		}
	}
	return true
}

func mergePiece(v reflect.Value, entry *value.FieldCacheEntry, name string, piece map[string]any) bool {
	field := entry.GetFrom(v)
	if !field.CanSet() {
		return false
	}
	if below, ok := piece[name].(map[string]any); ok && len(piece) == 1 && ordinary(below) {
		inner := field
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && !value.TypeReflectEntryOf(inner.Type()).CanConvertToUnstructured() {
			return mergePieces(inner, below)
		}
	}
	before, after := reflect.New(v.Type()), reflect.New(v.Type())
	entry.GetFrom(before.Elem()).Set(field)
	original, err := runtime.DefaultUnstructuredConverter.ToUnstructured(before.Interface())
	if err != nil {
		return false
	}
	merged, err := strategicpatch.StrategicMergeMapPatch(original, piece, after.Interface())
	if err != nil {
		return false
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, after.Interface(), true); err != nil {
		return false
	}
	field.Set(entry.GetFrom(after.Elem()))
	return true
}

// ordinary says that a patch of a structure has no directive for the structure
// itself.
func ordinary(changes map[string]any) bool {
	_, patch := changes["$patch"]
	_, retain := changes["$retainKeys"]
	return !patch && !retain
}
