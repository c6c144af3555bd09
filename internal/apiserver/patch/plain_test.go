// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// What is taken for plain JSON reads as YAML would read it; the rest is left to
// YAML.
func TestPlainJSON(t *testing.T) {
	for text, plain := range map[string]bool{
		`{"a":1,"b":[true,null,"x\n\"y\" /"],"c":{"d":-9223372036854775808}}`: true,
		"  {\"a\":\"é\"}\n":              true,
		`{"<<":{"a":"y"},"no":"0x10"}`:   true,
		`{}`:                             true,
		`{"a":1.0}`:                      false,
		`{"a":[{"b":1e3}]}`:              false,
		`{"a":9223372036854775808}`:      false,
		`{"a":"\ud83d\ude00"}`:           false,
		"{\"a\":\"\xff\"}":               false,
		`{"a":1,"a":2}`:                  false,
		`{"a":{"b":1,"b":2}}`:            false,
		`{"a":1}{"b":2}`:                 false,
		`{a: 1}`:                         false,
		`a: 1`:                           false,
		`[1]`:                            false,
		`null`:                           false,
		``:                               false,
		"{\"a\": 1, # comment\n\"b\":2}": false,
	} {
		got, ok := plainJSON([]byte(text))
		if ok != plain {
			t.Errorf("%s: got %v, want %v", text, ok, plain)
			continue
		}
		if !plain {
			continue
		}
		want := map[string]any{}
		if err := yaml.UnmarshalStrict([]byte(text), &want); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, want %#v", text, got, want)
		}
	}
}
