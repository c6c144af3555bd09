// SPDX-License-Identifier: Apache-2.0

package controller

import "testing"

func TestSelection(t *testing.T) {
	for _, c := range []struct {
		words   []string
		runs    []string
		doesNot []string
	}{
		{nil, []string{"replicaset-controller"}, []string{"token-cleaner-controller"}},
		{[]string{"*", "-replicaset", "tokencleaner"}, []string{"token-cleaner-controller", "deployment-controller"}, []string{"replicaset-controller"}},
		{[]string{"deployment-controller", "-deployment-controller"}, []string{"deployment-controller"}, []string{"replicaset-controller"}},
		{[]string{"-deployment-controller", "deployment-controller", "*"}, []string{"replicaset-controller"}, []string{"deployment-controller"}},
	} {
		s, err := newSelection(c.words)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range c.runs {
			if !s.has(name) {
				t.Errorf("%v: %s does not run", c.words, name)
			}
		}
		for _, name := range c.doesNot {
			if s.has(name) {
				t.Errorf("%v: %s runs", c.words, name)
			}
		}
	}
	if _, err := newSelection([]string{"*", "-nobody"}); err == nil || err.Error() != `"nobody" is not in the list of known controllers` {
		t.Errorf("an unknown name: %v", err)
	}
	for old, now := range former {
		if _, err := newSelection([]string{old}); err != nil {
			t.Errorf("%s, now %s: %v", old, now, err)
		}
	}
}
