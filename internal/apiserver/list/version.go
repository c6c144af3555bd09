// SPDX-License-Identifier: Apache-2.0

package list

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
)

// Bounds of one request for conversion: objects, and their size in bytes.
const (
	maxConverted      = 500
	maxConvertedBytes = 8 << 20
)

// InVersion returns an entry's object as a resource serves it; it must not be
// modified. What a webhook was asked for is kept with the entry.
func InVersion(s *request.Served, e *cache.Entry) (api.Object, error) {
	if !codec.Asks(s) {
		return codec.FromHub(s, e.Whole())
	}
	return e.Convert(s.GVK.Version, func() (api.Object, int, error) {
		obj, err := codec.FromHub(s, e.Object)
		if err != nil {
			err = &Unreadable{Key: e.Key, Revision: e.Revision, Err: err}
		}
		return obj, sizeOf(e.Object), err
	})
}

// Convert prepares entries for InVersion: those that a webhook must be asked
// for are converted many at a time.
func Convert(s *request.Served, entries []*cache.Entry) error {
	if !codec.Asks(s) {
		return nil
	}
	var wanted []*cache.Entry
	size := 0
	for _, e := range entries {
		if e.Converted(s.GVK.Version) != nil {
			continue
		}
		wanted = append(wanted, e)
		if size += sizeOf(e.Object); len(wanted) < maxConverted && size < maxConvertedBytes {
			continue
		}
		if err := convert(s, wanted); err != nil {
			return err
		}
		wanted, size = wanted[:0], 0
	}
	if len(wanted) == 0 {
		return nil
	}
	return convert(s, wanted)
}

func convert(s *request.Served, entries []*cache.Entry) error {
	hubs := make([]api.Object, len(entries))
	for i, e := range entries {
		hubs[i] = e.Object
	}
	all, err := codec.FromHubs(s, hubs)
	if err != nil {
		return eachUnreadable(s, entries)
	}
	if len(all) != len(entries) {
		return fmt.Errorf("conversion made %d objects of %d", len(all), len(entries))
	}
	for i, e := range entries {
		_, err := e.Convert(s.GVK.Version, func() (api.Object, int, error) { return all[i], sizeOf(e.Object), nil })
		if err != nil {
			return err
		}
	}
	return nil
}

// sizeOf estimates the bytes an object takes.
func sizeOf(obj api.Object) int {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return 0
	}
	return sizeOfValue(u.Object)
}

func sizeOfValue(v any) int {
	size := 16
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			size += len(name) + sizeOfValue(value)
		}
	case []any:
		for _, value := range v {
			size += sizeOfValue(value)
		}
	case string:
		size += len(v)
	}
	return size
}
