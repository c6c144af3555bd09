// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// atMost checks each item of a list; a longer list than limit is refused whole.
func atMost[T any](list []T, limit int, path *field.Path, check func(*T, *field.Path) field.ErrorList) field.ErrorList {
	if limit >= 0 && len(list) > limit {
		return field.ErrorList{field.TooMany(path, len(list), limit)}
	}
	var errs field.ErrorList
	for i := range list {
		errs = append(errs, check(&list[i], path.Index(i))...)
	}
	return errs
}

// unique is atMost for lists whose items differ in their key. shown says how
// an item that comes again stands in the error.
func unique[T any, K comparable](list []T, limit int, path *field.Path, key func(*T) K, shown func(*T) any, check func(*T, *field.Path) field.ErrorList) field.ErrorList {
	errs := atMost(list, limit, path, check)
	if limit >= 0 && len(list) > limit {
		return errs
	}
	seen := sets.New[K]()
	for i := range list {
		if k := key(&list[i]); seen.Has(k) {
			errs = append(errs, field.Duplicate(path.Index(i), shown(&list[i])))
		} else {
			seen.Insert(k)
		}
	}
	return errs
}

func itself[T any](v *T) any { return *v }

func same[T comparable](v *T) T { return *v }

// entries checks the keys, at path, and the values of a map, in the order of
// the keys.
func entries[K ~string, V any](m map[K]V, limit, keyLength int, path *field.Path, checkKey func(K, *field.Path) field.ErrorList, check func(*V, *field.Path) field.ErrorList) field.ErrorList {
	var errs field.ErrorList
	if limit >= 0 && len(m) > limit {
		errs = append(errs, field.TooMany(path, len(m), limit))
	}
	for _, k := range rule.SortedKeys(m) {
		v := m[k]
		errs = append(errs, checkKey(k, path)...)
		errs = append(errs, check(&v, path.Key(shorten(string(k), keyLength)))...)
	}
	return errs
}

// shorten keeps the two ends of a text that is too long for a path.
func shorten(text string, limit int) string {
	limit = max(limit, 16)
	if len(text) <= limit {
		return text
	}
	rest := limit - 3
	return text[:(rest+1)/2] + "..." + text[len(text)-rest/2:]
}

// oneField says which of the named fields are set, in the form of errors.
func oneField(names ...string) string { return "{" + strings.Join(names, ", ") + "}" }
