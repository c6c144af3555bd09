// SPDX-License-Identifier: Apache-2.0

package server

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	journalDate   = "2006-1-2 15:4:5"
	maxLogLines   = 100000
	maxLogService = 256
	maxLogQueries = 4
	logQueryTime  = 30 * time.Second
)

var unsafeInService = regexp.MustCompile(`[^a-zA-Z\-_.:0-9@]+`)

// systemLogs serves the files of a directory and, where queries are allowed, what
// journald or a file there has of a service (KEP-2258): `/logs/?query=kubelet`.
type systemLogs struct {
	dir   string
	files http.Handler
	query bool
}

// logQuery is what is asked for: services or one file.
type logQuery struct {
	services, files []string
	since, until    *time.Time
	lines, boot     *int
	pattern         string
}

// options says whether anything but the name is asked for.
func (q *logQuery) options() bool {
	return q.since != nil || q.until != nil || q.lines != nil || q.boot != nil || q.pattern != ""
}

// ServeHTTP implements http.Handler.
func (s *systemLogs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.query {
		s.files.ServeHTTP(w, r)
		return
	}
	q, errs := parseLogQuery(r.URL.Query())
	switch {
	case len(errs) > 0:
		http.Error(w, errs.ToAggregate().Error(), http.StatusBadRequest)
		return
	case !q.options() && len(q.services)+len(q.files) == 0:
		s.files.ServeHTTP(w, r)
		return
	case r.URL.Path != "/" && r.URL.Path != "":
		http.Error(w, "path not allowed in query mode", http.StatusNotAcceptable)
		return
	}
	if errs := s.validate(q); len(errs) > 0 {
		http.Error(w, errs.ToAggregate().Error(), http.StatusNotAcceptable)
		return
	}
	if len(q.files) == 1 {
		r = r.Clone(r.Context())
		r.URL.Path = strings.ReplaceAll(q.files[0], `\`, "/")
		s.files.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain;charset=UTF-8")
	var out io.Writer = w
	if r.Header.Get("Accept-Encoding") == "gzip" {
		w.Header().Set("Content-Encoding", "gzip")
		packed := gzip.NewWriter(w)
		defer packed.Close()
		out = packed
	}
	ctx, cancel := context.WithTimeout(r.Context(), logQueryTime)
	defer cancel()
	s.copy(ctx, out, q)
}

// parseLogQuery reads the parameters.
func parseLogQuery(values url.Values) (q logQuery, errs field.ErrorList) {
	queries, asked := values["query"]
	for _, text := range queries {
		if strings.ContainsAny(text, `/\`) {
			q.files = append(q.files, text)
		} else if strings.TrimSpace(text) != "" {
			q.services = append(q.services, text)
		}
	}
	if asked && len(q.files)+len(q.services) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("query"), queries, "may not be empty"))
	}
	at := func(name string) *time.Time {
		text := values.Get(name)
		if text == "" {
			return nil
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			errs = append(errs, field.Invalid(field.NewPath(name), text, "invalid time format"))
		}
		return &t
	}
	number := func(name string) *int {
		text := values.Get(name)
		if text == "" {
			return nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			errs = append(errs, field.Invalid(field.NewPath(name), text, err.Error()))
		}
		return &n
	}
	q.since, q.until, q.boot, q.lines, q.pattern = at("sinceTime"), at("untilTime"), number("boot"), number("tailLines"), values.Get("pattern")
	return q, errs
}

// validate says what of a query cannot be answered.
func (s *systemLogs) validate(q logQuery) (errs field.ErrorList) {
	name := field.NewPath("query")
	for _, service := range q.services {
		if len(service) > maxLogService {
			errs = append(errs, field.Invalid(name, service, fmt.Sprintf("length must be less than %d", maxLogService)))
		} else if unsafeInService.MatchString(service) {
			errs = append(errs, field.Invalid(name, service, "input contains unsupported characters"))
		}
	}
	if len(q.services) > maxLogQueries {
		errs = append(errs, field.TooMany(name, len(q.services), maxLogQueries))
	}
	switch {
	case len(q.files)+len(q.services) == 0:
		errs = append(errs, field.Required(name, "cannot be empty with options"))
	case len(q.files) > 0 && len(q.services) > 0:
		errs = append(errs, field.Invalid(name, fmt.Sprintf("%v, %v", q.files, q.services), "cannot specify a file and service"))
	case len(q.files) > 1:
		errs = append(errs, field.Invalid(name, q.files, "cannot specify more than one file"))
	case len(q.files) == 1 && q.options():
		errs = append(errs, field.Invalid(name, q.files, "cannot specify file with options"))
	case len(q.files) == 1:
		if err := s.exists(q.files[0]); err != nil {
			errs = append(errs, field.Invalid(name, q.files, err.Error()))
		}
	}
	if q.since != nil && q.until != nil && q.since.After(*q.until) {
		errs = append(errs, field.Invalid(field.NewPath("untilTime"), q.until, "must be after `sinceTime`"))
	}
	if q.boot != nil && *q.boot > 0 {
		errs = append(errs, field.Invalid(field.NewPath("boot"), *q.boot, "must be less than 1"))
	}
	if q.lines != nil {
		for _, why := range validation.IsInRange(*q.lines, 0, maxLogLines) {
			errs = append(errs, field.Invalid(field.NewPath("tailLines"), *q.lines, why))
		}
	}
	if _, err := syntax.Parse(q.pattern, syntax.Perl); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("pattern"), q.pattern, err.Error()))
	}
	return errs
}

func (s *systemLogs) exists(file string) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// The slash that a query for a file may begin with means the directory.
	_, err = root.Stat(path.Join(".", path.Clean("/"+strings.ReplaceAll(file, `\`, "/"))))
	return err
}

// copy writes what journald has of services, and files of those that it does not
// know. What goes wrong on the way stands in the output.
func (s *systemLogs) copy(ctx context.Context, w io.Writer, q logQuery) {
	known, _ := exec.CommandContext(ctx, "journalctl", "--field", "_SYSTEMD_UNIT").CombinedOutput() // nothing where there is no journald
	var journal, files []string
	for _, service := range q.services {
		if strings.Contains(string(known), service+".service") {
			journal = append(journal, service)
		} else {
			files = append(files, service)
		}
	}
	if len(journal) > 0 {
		cmd := exec.CommandContext(ctx, "journalctl", journalArgs(q, journal)...)
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Run(); err != nil {
			if _, ended := errors.AsType[*exec.ExitError](err); !ended && (q.boot == nil || *q.boot == 0) {
				fmt.Fprint(w, "\nerror: journal output not available\n")
			}
		}
	}
	if len(files) > 0 && q.options() {
		fmt.Fprintf(w, "\noptions present and query resolved to log files for %v\ntry without specifying options\n", files)
		return
	}
	for _, service := range files {
		s.copyFile(w, service)
	}
}

func journalArgs(q logQuery, services []string) []string {
	args := []string{"--utc", "--no-pager", "--output=short-precise"}
	if q.since != nil {
		args = append(args, "--since="+q.since.Format(journalDate))
	}
	if q.until != nil {
		args = append(args, "--until="+q.until.Format(journalDate))
	}
	if q.lines != nil {
		args = append(args, "--pager-end", "--lines="+strconv.Itoa(*q.lines))
	}
	for _, service := range services {
		args = append(args, "--unit="+service)
	}
	if q.pattern != "" {
		args = append(args, "--grep="+q.pattern)
	}
	if q.boot != nil {
		args = append(args, "--boot", strconv.Itoa(*q.boot))
	}
	return args
}

// copyFile writes the log of a service where it usually stands.
func (s *systemLogs) copyFile(w io.Writer, service string) {
	err := error(fs.ErrNotExist)
	for _, name := range []string{service, service + ".log", path.Join(service, service+".log")} {
		if err = s.copyOne(w, name); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(w, "\nlog not found for %s\n", service)
	case err != nil:
		fmt.Fprintf(w, "\nerror getting log for %s: %v\n", service, err)
	}
}

func (s *systemLogs) copyOne(w io.Writer, name string) error {
	f, err := os.OpenInRoot(s.dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fs.ErrNotExist
	}
	_, err = io.Copy(w, f)
	return err
}
