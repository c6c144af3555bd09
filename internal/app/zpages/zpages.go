// SPDX-License-Identifier: Apache-2.0

// Package zpages serves /flagz and /statusz, the pages that tell what a process is
// and how it was started.
package zpages

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/version"
	"sigs.k8s.io/yaml"
)

// Pages are /flagz and /statusz of a process (KEP-4828, KEP-4827): as text for
// people, or as objects of config.k8s.io for those that ask for them.
type Pages struct {
	name    string
	flags   map[string]string
	paths   []string // what else is served
	started time.Time
}

// New tells of the flags as they are now.
func New(name string, fs *pflag.FlagSet, paths ...string) *Pages {
	z := &Pages{name: name, flags: map[string]string{}, paths: paths, started: time.Now()}
	fs.VisitAll(func(f *pflag.Flag) { z.flags[f.Name] = f.Value.String() })
	slices.Sort(z.paths)
	return z
}

// Agent is what a node agent serves: /statusz, and /flagz if it has a command line.
func Agent(fs *pflag.FlagSet) map[string]http.Handler {
	paths := []string{"/attach", "/checkpoint", "/configz", "/containerLogs", "/debug", "/exec", "/healthz", "/logs", "/metrics", "/pods", "/portForward", "/run", "/runningpods", "/stats"}
	if fs == nil {
		z := New("kubelet", pflag.NewFlagSet("", pflag.ContinueOnError), paths...)
		return map[string]http.Handler{"/statusz": http.HandlerFunc(z.Statusz)}
	}
	z := New("kubelet", fs, append(paths, "/flagz")...)
	return map[string]http.Handler{"/flagz": http.HandlerFunc(z.Flagz), "/statusz": http.HandlerFunc(z.Statusz)}
}

// zmeta begins both objects.
type zmeta struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Name string `json:"name"`
	} `json:"metadata"`
}

func (z *Pages) meta(kind, version string) zmeta {
	m := zmeta{TypeMeta: metav1.TypeMeta{Kind: kind, APIVersion: "config.k8s.io/" + version}}
	m.Metadata.Name = z.name
	return m
}

const zwarning = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"

// Flagz serves the flags.
func (z *Pages) Flagz(w http.ResponseWriter, r *http.Request) {
	serveZ(w, r, "Flagz", func() string {
		var b strings.Builder
		fmt.Fprintf(&b, "\n%s flagz\n%s", z.name, zwarning)
		for _, name := range slices.Sorted(maps.Keys(z.flags)) {
			fmt.Fprintf(&b, "%s:%s\n", name, z.flags[name])
		}
		return b.String()
	}, func(version string) any {
		return struct {
			zmeta
			Flags map[string]string `json:"flags"`
		}{z.meta("Flagz", version), z.flags}
	})
}

// Statusz serves how long the process runs, and what it is.
func (z *Pages) Statusz(w http.ResponseWriter, r *http.Request) {
	up := time.Since(z.started)
	binary := strings.TrimPrefix(version.Get().GitVersion, "v")
	binary, _, _ = strings.Cut(binary, "+")
	emulated := strings.Join(strings.SplitN(binary+"..", ".", 3)[:2], ".")
	serveZ(w, r, "Statusz", func() string {
		return fmt.Sprintf("\n%s statusz\n%s\nStarted: %s\nUp: %d hr %02d min %02d sec\nGo version: %s\nBinary version: %s\nEmulation version: %s\nPaths: %s\n",
			z.name, zwarning, z.started.UTC().Format(time.UnixDate), int(up.Hours()), int(up.Minutes())%60, int(up.Seconds())%60,
			runtime.Version(), binary, emulated, strings.Join(z.paths, " "))
	}, func(version string) any {
		return struct {
			zmeta
			StartTime        metav1.Time `json:"startTime"`
			UptimeSeconds    int64       `json:"uptimeSeconds"`
			GoVersion        string      `json:"goVersion"`
			BinaryVersion    string      `json:"binaryVersion"`
			EmulationVersion string      `json:"emulationVersion,omitempty"`
			Paths            []string    `json:"paths"`
		}{z.meta("Statusz", version), metav1.NewTime(z.started), int64(up.Seconds()), runtime.Version(), binary, emulated, z.paths}
	})
}

// serveZ answers in the first form that is asked for and known.
func serveZ(w http.ResponseWriter, r *http.Request, kind string, text func() string, object func(version string) any) {
	accepted := r.Header.Get("Accept")
	if accepted == "" {
		accepted = "text/plain"
	}
	for one := range strings.SplitSeq(accepted, ",") {
		media, parameters, _ := strings.Cut(strings.ReplaceAll(one, " ", ""), ";")
		switch media {
		case "text/plain", "text/*", "*/*":
			writeZ(w, http.StatusOK, "text/plain; charset=utf-8", []byte(text()))
			return
		case "application/json", "application/yaml":
			version := zversion(parameters, kind)
			if version == "" {
				continue
			}
			encodeZ(w, http.StatusOK, media, fmt.Sprintf("%s;g=config.k8s.io;v=%s;as=%s", media, version, kind), object(version))
			return
		}
	}
	media := "application/json"
	if strings.HasPrefix(accepted, "application/yaml") {
		media = "application/yaml"
	}
	encodeZ(w, http.StatusNotAcceptable, media, media, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Message: "only the following media types are accepted: application/json, application/yaml, text/plain",
		Reason:  metav1.StatusReasonNotAcceptable, Code: http.StatusNotAcceptable,
	})
}

// zversion returns the version of a kind that a media type's parameters ask
// for, empty if there is none.
func zversion(parameters, kind string) string {
	asked := map[string]string{}
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(p, "=")
		asked[name] = value
	}
	if asked["g"] != "config.k8s.io" || asked["as"] != kind || asked["v"] != "v1beta1" && asked["v"] != "v1alpha1" {
		return ""
	}
	return asked["v"]
}

func encodeZ(w http.ResponseWriter, code int, media, contentType string, object any) {
	data, err := json.MarshalIndent(object, "", "  ")
	if err == nil && media == "application/yaml" {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeZ(w, code, contentType, data)
}

func writeZ(w http.ResponseWriter, code int, contentType string, data []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	_, _ = w.Write(data) // a client that left is no concern
}
