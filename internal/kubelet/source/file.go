// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"crypto/md5" //nolint:gosec // upstream's identity of a static pod, no secret
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
	"kaji/internal/api/core"
	"kaji/internal/kubelet/podspec"
)

// maxManifest bounds a static pod's file.
const maxManifest = 10 << 20

// Static reads static pods from a file, a directory or a URL.
type Static struct {
	NodeName string
	// Path is a file or a directory; URL is asked with Header. Either may be "".
	Path, URL string
	Header    http.Header
	// Check is how often to look even if nothing tells of changes; zero means 20 s.
	Check  time.Duration
	Sink   Sink
	Logger *slog.Logger
}

// Run tells of static pods until ctx ends.
func (s *Static) Run(ctx context.Context) error {
	check := s.Check
	if check == 0 {
		check = 20 * time.Second
	}
	var changes chan fsnotify.Event
	if s.Path != "" {
		if w, err := fsnotify.NewWatcher(); err == nil {
			defer w.Close()
			if err := w.Add(s.Path); err == nil {
				changes = w.Events
			}
		}
	}
	known := map[types.UID]*corev1.Pod{}
	for {
		pods, err := s.read(ctx)
		if err != nil {
			s.Logger.Warn("static pods were not read", "path", s.Path, "url", s.URL, "err", err)
		} else {
			s.tell(known, pods)
		}
		timer := time.NewTimer(check)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-changes:
			timer.Stop()
			settle(ctx, changes)
		}
	}
}

// settle waits until a burst of changes is over: files are written in pieces.
func settle(ctx context.Context, changes <-chan fsnotify.Event) {
	for {
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-changes:
			timer.Stop()
		case <-timer.C:
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// tell passes the difference on. A pod whose content changed is another pod.
func (s *Static) tell(known map[types.UID]*corev1.Pod, pods []*corev1.Pod) {
	now := map[types.UID]bool{}
	for _, pod := range pods {
		now[pod.UID] = true
	}
	for uid, pod := range known {
		if !now[uid] {
			delete(known, uid)
			s.Sink.Gone(pod)
		}
	}
	for _, pod := range pods {
		if known[pod.UID] == nil {
			known[pod.UID] = pod
			s.Sink.Add(pod)
		}
	}
}

func (s *Static) read(ctx context.Context) ([]*corev1.Pod, error) {
	if s.URL != "" {
		return s.fetch(ctx)
	}
	info, err := os.Stat(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		pod, err := s.file(s.Path)
		if err != nil {
			return nil, err
		}
		return []*corev1.Pod{pod}, nil
	}
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(s.Path, e.Name())
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		pod, err := s.file(path)
		if err != nil {
			s.Logger.Warn("a static pod's file is not one", "path", path, "err", err)
			continue
		}
		if slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.UID == pod.UID }) {
			continue
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

func (s *Static) file(path string) (*corev1.Pod, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, err
	}
	return Decode(data, s.NodeName, "file", path)
}

func (s *Static) fetch(ctx context.Context) ([]*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range s.Header {
		req.Header[k] = v
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxManifest))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%v: %v", s.URL, answer.Status)
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("zero-length data received from %v", s.URL)
	}
	var list corev1.PodList
	if err := yaml.Unmarshal(data, &list); err == nil && list.Kind == "PodList" {
		var pods []*corev1.Pod
		for i := range list.Items {
			one, err := json.Marshal(&list.Items[i])
			if err != nil {
				return nil, err
			}
			pod, err := Decode(one, s.NodeName, "http", s.URL)
			if err != nil {
				return nil, err
			}
			pods = append(pods, pod)
		}
		return pods, nil
	}
	pod, err := Decode(data, s.NodeName, "http", s.URL)
	if err != nil {
		return nil, err
	}
	return []*corev1.Pod{pod}, nil
}

// Decode reads a static pod and gives it the identity that it has on a node.
func Decode(data []byte, node, source, from string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		if err := yaml.Unmarshal(data, pod); err != nil {
			return nil, fmt.Errorf("couldn't parse as pod(%w), please check config file", err)
		}
	}
	if pod.Kind != "" && pod.Kind != "Pod" {
		return nil, fmt.Errorf("couldn't parse as pod: the kind is %q", pod.Kind)
	}
	pod.Kind, pod.APIVersion = "", ""
	if pod.UID == "" {
		sum := md5.New() //nolint:gosec // as above
		sum.Write(data)
		if source == "file" {
			fmt.Fprintf(sum, "host:%s", node)
		}
		fmt.Fprintf(sum, "%s:%s", source, from)
		pod.UID = types.UID(hex.EncodeToString(sum.Sum(nil)))
	}
	if pod.Name == "" {
		return nil, errors.New("a static pod needs a name")
	}
	pod.Name += "-" + strings.ToLower(node)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = node
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[podspec.SourceAnnotation] = source
	pod.Annotations[podspec.HashAnnotation] = string(pod.UID)
	pod.Annotations[podspec.SeenAnnotation] = time.Now().Format(time.RFC3339Nano)
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	pod.Generation = 1
	kind := podKind()
	kind.Versions[0].Default(pod)
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	if errs := kind.Rules.Validate(pod); len(errs) > 0 {
		return nil, fmt.Errorf("invalid pod: %w", errs.ToAggregate())
	}
	return pod, nil
}

func podKind() *api.Kind {
	for _, k := range core.Kinds() {
		if k.Name == "Pod" {
			return k
		}
	}
	return nil
}
