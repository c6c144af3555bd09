// SPDX-License-Identifier: Apache-2.0

package guide

import "testing"

// Lines match by their sort of words, and "…" stands for what is not shown.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		name    string
		shown   []string
		printed string
		want    bool
	}{
		{"the same", []string{"pod/web created"}, "pod/web created\n", true},
		{"another", []string{"pod/web created"}, "pod/web configured\n", false},
		{"nothing", nil, "", true},
		{"too much", nil, "a word\n", false},
		{"an age and wider columns", []string{"NAME  READY  AGE", "web   1/1    3s"}, "NAME      READY   AGE\nweb       1/1     2m13s\n", true},
		{"not ready", []string{"web   1/1    3s"}, "web   0/1    3s\n", false},
		{"names of a Deployment's pods", []string{"web-5d8f7c9b4d-x2k4z  1/1"}, "web-6c7b9d8f5-bq8zn  1/1", true},
		{"an event that came again", []string{"2s  Warning  Failed"}, "18s (x7 over 50s)  Warning  Failed", true},
		{"an address", []string{"web  10.244.0.3  <none>"}, "web  10.244.0.17  <none>", true},
		{"within a line", []string{"Node: …"}, "Node: one/10.9.0.1", true},
		{"lines between", []string{"Events:", "…", "  Normal  Started  1s"}, "Events:\n a\n b\n  Normal  Started  5s", true},
		{"no lines between", []string{"a", "…", "b"}, "a\nb", true},
		{"a line is missing at the end", []string{"a", "b"}, "a", false},
		{"a request that was given up", []string{"done"}, `E1129 05:42:20.855437   21755 request.go:1198] "Unexpected error when reading response body" err="context canceled"` + "\ndone\n", true},
		{"a request that failed", []string{"done"}, `E1129 05:42:20.855437   21755 request.go:1198] "Unexpected error when reading response body" err="EOF"` + "\ndone\n", false},
		{"a special character", []string{"a.b"}, "axb", false},
	} {
		if got, missing := matches(c.shown, c.printed); got != c.want {
			t.Errorf("%s: %v, want %v (at %q)", c.name, got, c.want, missing)
		}
	}
}

// A page's blocks become commands with their output, and quoted files.
func TestParse(t *testing.T) {
	page := "text\n```console\n$ cat <<E\n> one\n> E\none\n$ true\n```\n```yaml a.yaml\nkind: Pod\n```\n```yaml\nno: file\n```\n"
	steps, quotes, err := parse(page)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 2 || steps[0].command != "cat <<E\none\nE" || len(steps[0].expected) != 1 || steps[1].line != 7 {
		t.Errorf("steps %+v", steps)
	}
	if len(quotes) != 1 || quotes[0].file != "a.yaml" || quotes[0].text != "kind: Pod\n" {
		t.Errorf("quotes %+v", quotes)
	}
	for _, bad := range []string{"```console\n$ true\n", "```console\noutput\n```\n"} {
		if _, _, err := parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
