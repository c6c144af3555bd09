// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// readQuery fills the fields of an options struct from the parameters of their
// names. The error is a 400.
func readQuery(query url.Values, into any) error {
	v := reflect.ValueOf(into).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		values, ok := query[name]
		if name == "" || !ok {
			continue
		}
		if err := setField(v.Field(i), values); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	return nil
}

// setField sets a field of one of the types that connection options have.
func setField(f reflect.Value, values []string) error {
	first := ""
	if len(values) > 0 {
		first = values[0]
	}
	if f.Kind() == reflect.Pointer {
		if f.Type() == reflect.TypeFor[*metav1.Time]() {
			at, err := time.Parse(time.RFC3339, first)
			if err != nil {
				return err
			}
			f.Set(reflect.ValueOf(new(metav1.NewTime(at))))
			return nil
		}
		f.Set(reflect.New(f.Type().Elem()))
		return setField(f.Elem(), values)
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(first)
	case reflect.Bool:
		// A parameter without a value is set.
		f.SetBool(len(values) > 0 && !strings.EqualFold(first, "false") && first != "0")
	case reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(first, 10, f.Type().Bits())
		if err != nil {
			return err
		}
		f.SetInt(n)
	case reflect.Slice:
		f.Set(reflect.MakeSlice(f.Type(), 0, len(values)))
		for _, value := range values {
			for part := range splitNumbers(f.Type().Elem().Kind(), value) {
				element := reflect.New(f.Type().Elem()).Elem()
				if err := setField(element, []string{part}); err != nil {
					return err
				}
				f.Set(reflect.Append(f, element))
			}
		}
	}
	return nil
}

// splitNumbers yields the numbers of a list that may stand in one value, or
// the value itself where it is text.
func splitNumbers(kind reflect.Kind, value string) func(func(string) bool) {
	if kind == reflect.String {
		return func(yield func(string) bool) { yield(value) }
	}
	return strings.SplitSeq(value, ",")
}
