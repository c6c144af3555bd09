// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestSystemLogs serves files and answers queries, in upstream's words.
func TestSystemLogs(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{filepath.Join(dir, "one.log"): "one\n", filepath.Join(dir, "two/two.log"): "two\n", filepath.Join(dir, "three"): "three\n", outside: "secret"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir()) // no journald: it would depend on the machine
	ask := func(allowed bool, target string) (int, string) {
		w := httptest.NewRecorder()
		s := &systemLogs{dir: dir, files: http.FileServer(http.Dir(dir)), query: allowed}
		http.StripPrefix("/logs/", s).ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		target string
		code   int
		want   string // the beginning
	}{
		{"/logs/one.log", 200, "one\n"},
		{"/logs/?query=one", 200, "one\n"},
		{"/logs/?query=two&query=three", 200, "two\nthree\n"},
		{"/logs/?query=four", 200, "\nlog not found for four\n"},
		{"/logs/?query=link", 200, "\nerror getting log for link: "},
		{"/logs/?query=two/two.log", 200, "two\n"},
		{"/logs/?query=/one.log", 200, "one\n"},
		{"/logs/?query=/two/two.log", 200, "two\n"},
		{"/logs/?query=/../two/two.log", 200, "two\n"},
		{"/logs/?query=/link", 406, `query: Invalid value: ["/link"]: `},
		{"/logs/?query=/none", 406, `query: Invalid value: ["/none"]: `},
		{"/logs/?query=one&tailLines=3", 200, "\noptions present and query resolved to log files for [one]\ntry without specifying options\n"},
		{"/logs/?query=%20", 400, `query: Invalid value: [" "]: may not be empty`},
		{"/logs/?query=one&sinceTime=now", 400, `sinceTime: Invalid value: "now": invalid time format`},
		{"/logs/?query=one&boot=x", 400, `boot: Invalid value: "x": strconv.Atoi: parsing "x": invalid syntax`},
		{"/logs/one.log?query=one", 406, "path not allowed in query mode"},
		{"/logs/?tailLines=3", 406, "query: Required value: cannot be empty with options"},
		{"/logs/?query=one&query=/one.log", 406, `query: Invalid value: "[/one.log], [one]": cannot specify a file and service`},
		{"/logs/?query=/a&query=/b", 406, `query: Invalid value: ["/a","/b"]: cannot specify more than one file`},
		{"/logs/?query=/one.log&boot=0", 406, `query: Invalid value: ["/one.log"]: cannot specify file with options`},
		{"/logs/?query=one&boot=1", 406, `boot: Invalid value: 1: must be less than 1`},
		{"/logs/?query=one&tailLines=100001", 406, `tailLines: Invalid value: 100001: must be between 0 and 100000, inclusive`},
		{"/logs/?query=one;id", 406, `query: `},
		{"/logs/?query=one%3Bid", 406, `query: Invalid value: "one;id": input contains unsupported characters`},
		{"/logs/?query=" + strings.Repeat("a", 257), 406, `query: Invalid value: "` + strings.Repeat("a", 257) + `": length must be less than 256`},
		{"/logs/?query=a&query=b&query=c&query=d&query=e", 406, "query: Too many: 5: must have at most 4 items"},
		{"/logs/?query=one&pattern=(", 406, "pattern: Invalid value: \"(\": error parsing regexp: missing closing ): `(`"},
		{"/logs/?query=one&sinceTime=2024-02-01T00:00:00Z&untilTime=2024-01-01T00:00:00Z", 406, "untilTime: Invalid value: "},
	} {
		code, text := ask(true, c.target)
		if strings.Contains(c.target, ";") && !strings.Contains(c.target, "%3B") {
			// A bare semicolon ends a query for Go: nothing is asked for.
			if code != 200 {
				t.Errorf("%s: %d %s", c.target, code, text)
			}
			continue
		}
		if code != c.code || !strings.HasPrefix(text, c.want) {
			t.Errorf("%s: %d %q, want %d %q", c.target, code, text, c.code, c.want)
		}
		if strings.Contains(text, "secret") {
			t.Errorf("%s tells what is outside: %s", c.target, text)
		}
	}
	if code, text := ask(false, "/logs/?query=one"); code != 200 || !strings.Contains(text, "one.log") {
		t.Errorf("where queries are not allowed: %d %s, want the list of files", code, text)
	}
}

// TestJournalArgs asks journald for what the query says.
func TestJournalArgs(t *testing.T) {
	values, err := url.ParseQuery("query=kubelet&sinceTime=2024-02-03T04:05:06Z&untilTime=2024-02-03T05:00:00Z&tailLines=7&pattern=a.b&boot=-1")
	if err != nil {
		t.Fatal(err)
	}
	q, errs := parseLogQuery(values)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want := []string{"--utc", "--no-pager", "--output=short-precise", "--since=2024-2-3 04:5:6", "--until=2024-2-3 05:0:0", "--pager-end", "--lines=7",
		"--unit=kubelet", "--grep=a.b", "--boot", "-1"}
	if got := journalArgs(q, q.services); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
