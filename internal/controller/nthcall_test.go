// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller"
	"kaji/internal/controller/controllertest"
	"kaji/kajitest"
)

// scenario is a short story that some controllers act in. However one of their
// calls fails, it must end with the same objects.
type scenario struct {
	// controllers are those that act, by their names.
	controllers string
	// config changes what the controllers work with; nil leaves it.
	config func(*controller.Config)
	// steps are requests ("METHOD path", the body in YAML below it) or pauses
	// ("live 30s"), in which pods live as their label "fate" says.
	steps []string
}

// Every controller acts in a scenario.
func TestEveryControllerActs(t *testing.T) {
	var acting []string
	for _, stories := range []map[string]scenario{scenarios, outside()} {
		for _, s := range stories {
			acting = append(acting, strings.Fields(s.controllers)...)
		}
	}
	for _, name := range controller.Listed() {
		if !slices.Contains(acting, name) {
			t.Errorf("%s acts in no scenario", name)
		}
	}
}

// TestEachCallFailsOnce runs every scenario once as it is, and once more for
// each call that its controllers made, which fails: without effect, with its
// answer lost, or in conflict; in all three ways the first of its kind, in turn
// the others. What stands in the cluster at the end must be the same every
// time: nothing lost, nothing doubled.
func TestEachCallFailsOnce(t *testing.T) { eachCall(t, controllertest.Ways) }

// TestProcessEndsAtEachCall does the same where the process of the controllers
// ends at a call, before or after its effect, and another one, that knows of
// nothing, takes over.
func TestProcessEndsAtEachCall(t *testing.T) { eachCall(t, controllertest.Ends) }

func eachCall(t *testing.T, all []controllertest.Way) {
	t.Helper()
	stories := maps.Clone(scenarios)
	maps.Copy(stories, outside())
	for name, s := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, calls := s.play(t, &controllertest.Nth{})
			if len(calls) == 0 {
				t.Fatal("the controllers called nothing")
			}
			for n, call := range calls {
				ways := all
				if slices.Index(calls, call) < n { // its kind has failed in all ways already
					ways = ways[n%len(ways):][:1]
				}
				for _, way := range ways {
					one := &controllertest.Nth{N: n + 1, Way: way}
					got, _ := s.play(t, one)
					if got != want {
						t.Errorf("after %s the end is another:\n%s", one.Met(), difference(want, got))
					}
				}
			}
		})
	}
}

// play runs the scenario and returns what it leaves, and how many calls the
// controllers made.
func (s scenario) play(t *testing.T, nth *controllertest.Nth) (left string, calls []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t, kajitest.WithRBAC(), kajitest.WithServer(func(c *apiserver.Config) {
			c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
			c.Kinds = catalog.WithGroups(catalog.Current())
		}))
		used := accounts{}
		defer used.allowed(t, cluster)
		ctx, cancel := context.WithCancel(t.Context())
		own := used.of(cluster)
		done := make(chan error, 1)
		go func() { done <- s.manage(ctx, own, nth) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		st := stage{t, cluster, &http.Client{Transport: cluster.Client().RESTConfig().Transport}}
		st.live(takeover + 5*time.Second) // accounts are made by whoever acts first
		for _, step := range s.steps {
			if pause, ok := strings.CutPrefix(step, "live "); ok {
				d, err := time.ParseDuration(strings.TrimSpace(pause))
				if err != nil {
					t.Fatal(err)
				}
				st.live(d)
				continue
			}
			if pause, ok := strings.CutPrefix(step, "wait "); ok { // without pods
				d, err := time.ParseDuration(pause)
				if err != nil {
					t.Fatal(err)
				}
				<-time.After(d)
				synctest.Wait()
				continue
			}
			st.request(step)
		}
		st.live(30 * time.Second)
		left, calls = st.left(), nth.Calls()
	})
	return left, calls
}

// takeover is how long nobody acts when a process has ended.
const takeover = 5 * time.Second

// manage runs the controllers with the calls of nth, and when their process ends
// at one of them, others without.
func (s scenario) manage(ctx context.Context, own func(string) (client.Interface, error), nth *controllertest.Nth) error {
	first, end := context.WithCancel(ctx)
	defer end()
	nth.End = end
	err := s.run(first, func(name string) (client.Interface, error) {
		api, err := own(name)
		return nth.Client(api), err
	})
	if err != nil || ctx.Err() != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(takeover):
		return s.run(ctx, own)
	}
}

// run runs the controllers until ctx ends.
func (s scenario) run(ctx context.Context, own func(string) (client.Interface, error)) error {
	c := controller.Config{Controllers: strings.Fields(s.controllers), Client: own}
	if s.config != nil {
		s.config(&c)
	}
	m, err := controller.New(c)
	if err != nil {
		return err
	}
	return m.Run(ctx)
}

// stage is where a scenario plays.
type stage struct {
	*testing.T
	cluster *kajitest.Cluster
	http    *http.Client
}

func (st stage) do(method, path string, body []byte) (int, []byte) {
	st.Helper()
	config := st.cluster.Client().RESTConfig()
	req, err := http.NewRequestWithContext(st.Context(), method, config.Host+path, bytes.NewReader(body))
	if err != nil {
		st.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+config.BearerToken)
	if len(body) > 0 {
		req.Header.Set("Content-Type", map[bool]string{true: "application/merge-patch+json", false: "application/json"}[method == http.MethodPatch])
	}
	resp, err := st.http.Do(req)
	if err != nil {
		st.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		st.Fatal(err)
	}
	return resp.StatusCode, data
}

// request does what a step says.
func (st stage) request(step string) {
	st.Helper()
	line, text, _ := strings.Cut(strings.TrimSpace(step), "\n")
	method, path, ok := strings.Cut(line, " ")
	body, err := yaml.YAMLToJSON([]byte(strings.ReplaceAll(text, "\t", "  ")))
	if !ok || err != nil {
		st.Fatalf("step %q: %v", step, err)
	}
	if text == "" {
		body = nil
	}
	if code, answer := st.do(method, path, body); code >= 300 {
		st.Fatalf("%s: %d %s", line, code, answer)
	}
}

// live lets time go by; every five seconds the nodes do their part: pods run
// and are ready, or end as their label "fate" says ("ok", "bad", "none").
func (st stage) live(d time.Duration) {
	st.Helper()
	pods := client.For[*corev1.Pod](st.cluster.Client())
	for ; d > 0; d -= 5 * time.Second {
		<-time.After(min(d, 5*time.Second))
		synctest.Wait()
		all, err := pods.List(st.Context(), "", metav1.ListOptions{})
		if err != nil {
			st.Fatal(err)
		}
		for _, p := range all {
			if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.Labels["fate"] == "none" {
				continue
			}
			if _, err := pods.UpdateStatus(st.Context(), lived(p)); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				st.Fatal(err)
			}
		}
	}
}

// lived is a pod after what its fate has for it.
func lived(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	p.Status.Phase = map[string]corev1.PodPhase{"ok": corev1.PodSucceeded, "bad": corev1.PodFailed, "": corev1.PodRunning}[p.Labels["fate"]]
	if p.Status.Phase != corev1.PodRunning {
		return p
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return p
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	return p
}

// unlike are the resources that differ from run to run, or say nothing.
var unlike = []string{"events", "leases", "flowschemas", "prioritylevelconfigurations", "apiservices"}

// left is every object of the cluster in canonical form, one a line.
func (st stage) left() string {
	st.Helper()
	var all []map[string]any
	for _, kind := range st.cluster.Server().Kinds().All() {
		if slices.Contains(unlike, kind.Resource) || len(kind.Verbs) > 0 && !slices.Contains(kind.Verbs, "list") {
			continue
		}
		gv := kind.Versions[0].GroupVersion
		path := "/apis/" + gv.String() + "/" + kind.Resource
		if gv.Group == "" {
			path = "/api/v1/" + kind.Resource
		}
		code, data := st.do(http.MethodGet, path, nil)
		var list unstructured.UnstructuredList
		if code != http.StatusOK {
			continue // served in another version only
		}
		if err := json.Unmarshal(data, &list.Object); err != nil {
			st.Fatal(err)
		}
		items, _, _ := unstructured.NestedSlice(list.Object, "items")
		for _, item := range items {
			o := item.(map[string]any)
			o["kind"] = kind.Name
			all = append(all, o)
		}
	}
	return canonical(all)
}

var (
	instants = regexp.MustCompile(`"\d{4}-\d\d-\d\d(T[\d:.]+Z)?"`)
	revision = regexp.MustCompile(`"(resourceVersion|observedGeneration|generation|lastChangeTriggerTime)":("[^"]*"|\d+)`)
	uids     = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	suffixes = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{5}\b`)
	progress = regexp.MustCompile(`ReplicaSet \\"[^"]*\\" has successfully progressed`) // of this revision or the one before
	secrets  = regexp.MustCompile(`"(certificate|token|jws-kubeconfig-\w+)":"[^"]*"`)
)

// canonical takes out what is random or a time: UIDs are told by the names of
// what has them, generated names by what they begin with.
func canonical(all []map[string]any) string {
	var names []string
	for _, o := range all {
		if u := (unstructured.Unstructured{Object: o}); u.GetUID() != "" {
			names = append(names, string(u.GetUID()), u.GetKind()+" "+u.GetName())
		}
	}
	known := strings.NewReplacer(names...)
	var lines []string
	for _, o := range all {
		meta := o["metadata"].(map[string]any)
		for _, field := range []string{"managedFields", "creationTimestamp", "uid"} {
			delete(meta, field)
		}
		switch o["kind"] {
		case "HorizontalPodAutoscaler", "DeviceTaintRule": // they tell of the last look only, of evictions since the start
			unstructured.RemoveNestedField(o, "status")
		}
		if conditions, ok, _ := unstructured.NestedSlice(o, "status", "conditions"); ok {
			slices.SortFunc(conditions, func(a, b any) int {
				return strings.Compare(a.(map[string]any)["type"].(string), b.(map[string]any)["type"].(string))
			})
			o["status"].(map[string]any)["conditions"] = conditions
		}
		if notes, ok := meta["annotations"].(map[string]any); ok { // it is given as long as the change is in memory
			if delete(notes, corev1.EndpointsLastChangeTriggerTime); len(notes) == 0 {
				delete(meta, "annotations")
			}
		}
		raw, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		line := known.Replace(string(raw))
		line = secrets.ReplaceAllString(line, `"$1":"?"`)
		line = progress.ReplaceAllString(line, "progressed")
		line = suffixes.ReplaceAllString(uids.ReplaceAllString(line, "?"), "-*")
		lines = append(lines, instants.ReplaceAllString(revision.ReplaceAllString(line, `"$1":0`), `"?"`))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// difference shows the lines that only one of the two has.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	only := func(mark string, of, other []string) {
		rest := slices.Clone(other)
		for _, line := range of {
			if i := slices.Index(rest, line); i >= 0 {
				rest = slices.Delete(rest, i, i+1)
				continue
			}
			fmt.Fprintf(&out, "%s %s\n", mark, line)
		}
	}
	only("-", w, g)
	only("+", g, w)
	return out.String()
}
