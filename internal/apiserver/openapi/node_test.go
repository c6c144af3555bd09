// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// JSON is the nodes that a parser of YAML makes of it, and what ends early is none.
func TestNodeOf(t *testing.T) {
	const text = `{"a":{}, "list": [ 1,-2, 0 ,1.5,1e3,1.5e+30,12345678901234567890,123456789012345678901234567890, true,false,null,[],"", "a\"b\\", "\u003c\n\u2028ü", "true", "12", "~", "<<" ],"x y":"# no: comment, [ ] { }"}`
	var want yaml.Node
	if err := yaml.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	var plain func(n *yaml.Node)
	plain = func(n *yaml.Node) {
		n.Style, n.Line, n.Column = 0, 0, 0
		for _, child := range n.Content {
			plain(child)
		}
	}
	plain(&want)
	got, err := nodeOf([]byte(text))
	if diff := cmp.Diff(want.Content[0], got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	for _, short := range []string{"", "{", `{"a"`, `{"a":`, `["a`, `["a\`} {
		if n, err := nodeOf([]byte(short)); err == nil {
			t.Errorf("%s: got %v", short, n)
		}
	}
}
