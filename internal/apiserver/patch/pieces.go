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
	if changes, ok := piece[name].([]any); ok && len(piece) == 1 {
		if items := changed(v.Type(), name, field, changes); items != nil {
			for i, item := range items {
				if !mergePieces(item, changes[i].(map[string]any)) {
					return false
				}
			}
			return true
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

// changed returns the elements of a list, the named field of a structure of type
// t, that changes are for: those with the same key. It is nil where it takes the
// library: not all are there, once and in the order of the changes, or there is a
// directive.
func changed(t reflect.Type, name string, list reflect.Value, changes []any) []reflect.Value {
	key := mergeKey(t, name, list.Type())
	if key == nil || len(changes) == 0 {
		return nil
	}
	at := make(map[string]int, list.Len())
	for i := range list.Len() {
		of := key.GetFrom(list.Index(i)).String()
		if _, twice := at[of]; twice {
			return nil
		}
		at[of] = i
	}
	items, last := make([]reflect.Value, len(changes)), -1
	for i, change := range changes {
		fields, _ := change.(map[string]any)
		of, ok := fields[key.JsonName].(string)
		found, there := at[of]
		if !ok || !there || found <= last || !ordinary(fields) {
			return nil
		}
		items[i], last = list.Index(found), found
	}
	for _, change := range changes {
		delete(change.(map[string]any), key.JsonName) // it is that already
	}
	return items
}

// mergeKey returns the field that tells the elements of a list apart, nil where
// they are not merged by a text.
func mergeKey(t reflect.Type, name string, list reflect.Type) *value.FieldCacheEntry {
	if list.Kind() != reflect.Slice || list.Elem().Kind() != reflect.Struct {
		return nil
	}
	types, err := strategicpatch.NewPatchMetaFromStruct(reflect.New(t).Interface())
	if err != nil {
		return nil
	}
	_, of, err := types.LookupPatchMetadataForSlice(name)
	if err != nil || len(of.GetPatchStrategies()) != 1 || of.GetPatchStrategies()[0] != "merge" || of.GetPatchMergeKey() == "" {
		return nil
	}
	key := value.TypeReflectEntryOf(list.Elem()).Fields()[of.GetPatchMergeKey()]
	if key == nil || key.GetFrom(reflect.Zero(list.Elem())).Kind() != reflect.String {
		return nil
	}
	return key
}

// ordinary says that a patch of a structure has no directive for the structure
// itself.
func ordinary(changes map[string]any) bool {
	_, patch := changes["$patch"]
	_, retain := changes["$retainKeys"]
	return !patch && !retain
}
