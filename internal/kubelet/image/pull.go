// SPDX-License-Identifier: Apache-2.0

// Package image makes images present on the node when containers need them,
// with back-off after failures, and removes those that nothing uses when the
// disk fills.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
	"kaji/internal/kubelet/podrun"
)

// Config is what a Store needs.
type Config struct {
	Images   cri.Images
	Recorder record.EventRecorder
	Logger   *slog.Logger
	// Credentials are tried in order; none means an anonymous pull.
	Credentials func(ctx context.Context, pod *corev1.Pod, image string) ([]Login, error)
	// Records know who may have which image; nil lets every pod have every image.
	Records *Records
	// QPS and Burst bound how many pulls begin a second; a QPS of zero is no bound.
	QPS   float32
	Burst int
	// Listed is how many images the Node object shows: nil means 50, a negative
	// number all.
	Listed *int32
	// Pulled is told of each pull: how long it took and how large the image is; Ensured of
	// each image that was asked for, and Collected of each that was removed and why.
	Pulled    func(pod *corev1.Pod, took time.Duration, bytes uint64)
	Ensured   func(policy corev1.PullPolicy, present, pulled string)
	Collected func(reason string)
	// MaxParallel bounds pulls at the same time; zero is no bound. Serial
	// pulls are MaxParallel 1.
	MaxParallel int
	// BackOff and MaxBackOff delay pulls that fail; zero means 10 s and 5 min.
	BackOff, MaxBackOff time.Duration
}

// Store makes images present. Its methods are safe for concurrent use.
type Store struct {
	cfg     Config
	backoff *flowcontrol.Backoff
	slots   chan struct{}
	limit   flowcontrol.RateLimiter // nil for none
	mu      struct {
		sync.Mutex
		failed map[string]string           // back-off key -> what the last pull said
		seen   map[string]time.Time        // image id -> first seen by Collect
		used   map[string]time.Time        // image id -> last needed
		users  map[string]podrun.ImageUser // image reference -> its user
	}
}

// New returns a Store.
func New(cfg Config) *Store {
	if cfg.BackOff == 0 {
		cfg.BackOff = 10 * time.Second
	}
	if cfg.MaxBackOff == 0 {
		cfg.MaxBackOff = 5 * time.Minute
	}
	s := &Store{cfg: cfg, backoff: flowcontrol.NewBackOff(cfg.BackOff, cfg.MaxBackOff)}
	if cfg.MaxParallel > 0 {
		s.slots = make(chan struct{}, cfg.MaxParallel)
	}
	if cfg.QPS > 0 {
		s.limit = flowcontrol.NewTokenBucketRateLimiter(cfg.QPS, cfg.Burst)
	}
	s.mu.failed = map[string]string{}
	s.mu.seen = map[string]time.Time{}
	s.mu.used = map[string]time.Time{}
	s.mu.users = map[string]podrun.ImageUser{}
	return s
}

// Request is an image that a container or a volume needs.
type Request struct {
	Pod    *corev1.Pod
	Image  string
	Policy corev1.PullPolicy
	// Handler is that of the pod's RuntimeClass.
	Handler string
	Sandbox *runtimeapi.PodSandboxConfig
	// Object is what events are about.
	Object *corev1.ObjectReference
}

// Ensure makes an image present and returns its reference; a failure is a
// *podrun.Failure with upstream's reason.
func (s *Store) Ensure(ctx context.Context, r Request) (string, error) {
	present, pulled := "unknown", "unknown" // as the metric has them
	if s.cfg.Ensured != nil {
		defer func() { s.cfg.Ensured(r.Policy, present, pulled) }()
	}
	name, err := withTag(r.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", r.Image, err)
		s.cfg.Recorder.Event(r.Object, corev1.EventTypeWarning, "InspectFailed", message)
		return "", &podrun.Failure{Reason: "InvalidImageName", Message: message}
	}
	spec := &runtimeapi.ImageSpec{Image: name, Annotations: r.Pod.Annotations, RuntimeHandler: r.Handler}
	ref, err := s.present(ctx, spec)
	if err != nil {
		message := fmt.Sprintf("Failed to inspect image %q: %v", r.Image, err)
		s.cfg.Recorder.Event(r.Object, corev1.EventTypeWarning, "InspectFailed", message)
		return "", &podrun.Failure{Reason: "ImageInspectError", Message: message}
	}
	present = strconv.FormatBool(ref != "")
	if r.Policy == corev1.PullAlways {
		ref = ""
	}
	allowed := ref != ""
	if allowed && s.cfg.Records != nil {
		if allowed, err = s.cfg.Records.Allow(r.Image, ref, func() ([]Login, error) { return s.logins(ctx, r.Pod, name) }); err != nil {
			return "", &podrun.Failure{Reason: "ErrImagePull", Message: err.Error()}
		}
	}
	pulled = strconv.FormatBool(!allowed)
	if allowed {
		s.cfg.Recorder.Eventf(r.Object, corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine and can be accessed by the pod", r.Image)
		return ref, nil
	}
	if r.Policy == corev1.PullNever {
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		s.cfg.Recorder.Event(r.Object, corev1.EventTypeWarning, "ErrImageNeverPull", message)
		return "", &podrun.Failure{Reason: "ErrImageNeverPull", Message: message}
	}
	return s.pull(ctx, r, spec)
}

func (s *Store) pull(ctx context.Context, r Request, spec *runtimeapi.ImageSpec) (string, error) {
	key := string(r.Pod.UID) + "_" + r.Image
	if s.backoff.IsInBackOffSinceUpdate(key, time.Now()) {
		message := fmt.Sprintf("Back-off pulling image %q", r.Image)
		s.cfg.Recorder.Event(r.Object, corev1.EventTypeNormal, "BackOff", message)
		s.mu.Lock()
		if last := s.mu.failed[key]; last != "" {
			message += ": " + last
		}
		s.mu.Unlock()
		return "", &podrun.Failure{Reason: "ImagePullBackOff", Message: message, RetryAt: time.Now().Add(s.backoff.Get(key))}
	}
	s.cfg.Recorder.Eventf(r.Object, corev1.EventTypeNormal, "Pulling", "Pulling image %q", r.Image)
	waitedSince := time.Now()
	if s.slots != nil {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	begun := time.Now()
	if s.cfg.Records != nil {
		if err := s.cfg.Records.begin(r.Image); err != nil {
			return "", &podrun.Failure{Reason: "ErrImagePull", Message: fmt.Sprintf("Failed to record image pull intent for container image %q: %v", r.Image, err)}
		}
		defer func() {
			if err := s.cfg.Records.end(r.Image); err != nil {
				s.cfg.Logger.Error("a record of an image was not removed", "image", r.Image, "err", err)
			}
		}()
	}
	ref, with, err := s.try(ctx, r, spec)
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		s.cfg.Recorder.Eventf(r.Object, corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", r.Image, err)
		s.backoff.Next(key, time.Now())
		reason, message := classify(r.Image, err)
		s.mu.Lock()
		s.mu.failed[key] = reason + ": " + message
		s.mu.Unlock()
		return "", &podrun.Failure{Reason: reason, Message: message}
	}
	s.mu.Lock()
	delete(s.mu.failed, key)
	s.mu.Unlock()
	size, id := uint64(0), ref
	if answer, err := s.cfg.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err == nil {
		size = answer.GetImage().GetSize()
		if answer.GetImage().GetId() != "" {
			id = answer.Image.Id
		}
	}
	if s.cfg.Records != nil {
		if err := s.cfg.Records.note(r.Image, id, with); err != nil {
			s.cfg.Logger.Error("failed to write image pulled record", "image", r.Image, "imageRef", id, "err", err)
		}
	}
	if s.cfg.Pulled != nil {
		s.cfg.Pulled(r.Pod, time.Since(begun), size)
	}
	s.cfg.Recorder.Eventf(r.Object, corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		r.Image, time.Since(begun).Truncate(time.Millisecond), time.Since(waitedSince).Truncate(time.Millisecond), size)
	s.backoff.GC()
	return ref, nil
}

// logins are those that a pod has for an image; none is an anonymous pull.
func (s *Store) logins(ctx context.Context, pod *corev1.Pod, name string) ([]Login, error) {
	if s.cfg.Credentials == nil {
		return nil, nil
	}
	return s.cfg.Credentials(ctx, pod, name)
}

// try pulls with one login after the other and returns the one that was good.
func (s *Store) try(ctx context.Context, r Request, spec *runtimeapi.ImageSpec) (ref string, with *Login, err error) {
	logins, err := s.logins(ctx, r.Pod, spec.Image)
	if err != nil {
		return "", nil, err
	}
	if s.limit != nil && !s.limit.TryAccept() {
		return "", nil, errors.New("pull QPS exceeded")
	}
	if len(logins) == 0 {
		logins = []Login{{}}
	}
	for i := range logins {
		answer, failed := s.cfg.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: logins[i].Auth, SandboxConfig: r.Sandbox})
		if failed == nil {
			return answer.ImageRef, &logins[i], nil
		}
		err = failed
	}
	return "", nil, err
}

// classify gives a failed pull the reason that the container's status shows.
func classify(image string, err error) (reason, message string) {
	message = err.Error()
	text := message
	if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	switch {
	case strings.HasPrefix(text, "RegistryUnavailable"):
		return "RegistryUnavailable", strings.TrimPrefix(strings.Replace(text, "RegistryUnavailable",
			fmt.Sprintf("image pull failed for %s because the registry is unavailable", image), 1), ": ")
	case strings.HasPrefix(text, "SignatureValidationFailed"):
		return "SignatureValidationFailed", strings.Replace(text, "SignatureValidationFailed",
			fmt.Sprintf("image pull failed for %s because the signature validation failed", image), 1)
	}
	return "ErrImagePull", message
}

func (s *Store) present(ctx context.Context, spec *runtimeapi.ImageSpec) (string, error) {
	answer, err := s.cfg.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		return "", err
	}
	if answer.Image == nil {
		return "", nil
	}
	s.touch(answer.Image)
	return answer.Image.Id, nil
}

func (s *Store) touch(image *runtimeapi.Image) {
	user := podrun.ImageUser{Name: image.Username}
	if image.Uid != nil {
		uid := image.Uid.Value
		user.UID = &uid
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.used[image.Id] = time.Now()
	s.mu.users[image.Id] = user
}

// User returns the user that an image asks for; root where it asks for none.
func (s *Store) User(ctx context.Context, ref string) (podrun.ImageUser, error) {
	s.mu.Lock()
	user, ok := s.mu.users[ref]
	s.mu.Unlock()
	if !ok {
		answer, err := s.cfg.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		if err != nil {
			return user, fmt.Errorf("inspect image %s: %w", ref, err)
		}
		if answer.Image == nil {
			return user, fmt.Errorf("failed to get image status for %q", ref)
		}
		s.touch(answer.Image)
		s.mu.Lock()
		user = s.mu.users[answer.Image.Id]
		s.mu.Unlock()
	}
	if user.UID == nil && user.Name == "" {
		zero := int64(0)
		user.UID = &zero
	}
	return user, nil
}

// repository is the part of a name that must be lower case: what follows the
// registry, with the names that Docker's own registry leaves out.
func repository(image string) string {
	first, rest, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && first == strings.ToLower(first) {
		first, rest = "docker.io", image
	}
	if i := strings.LastIndex(rest, ":"); i > strings.LastIndex(rest, "/") {
		rest = rest[:i]
	}
	if (first == "docker.io" || first == "index.docker.io") && !strings.Contains(rest, "/") {
		return "library/" + rest
	}
	return rest
}

// withTag adds ":latest" to a name that has neither tag nor digest.
func withTag(image string) (string, error) {
	if image == "" || strings.ContainsAny(image, " \t\n") || strings.HasPrefix(image, ":") || strings.HasPrefix(image, "/") || strings.HasSuffix(image, "/") || strings.HasSuffix(image, ":") || strings.Contains(image, "//") {
		return "", fmt.Errorf("couldn't parse image name %q: invalid reference format", image)
	}
	if strings.Contains(image, "@") {
		return image, nil
	}
	last := image[strings.LastIndex(image, "/")+1:]
	if last != strings.ToLower(last) && !strings.Contains(last, ":") || strings.ToLower(strings.Split(last, ":")[0]) != strings.Split(last, ":")[0] {
		return "", fmt.Errorf("couldn't parse image name %q: invalid reference format: repository name (%s) must be lowercase", image, repository(image))
	}
	if strings.Contains(last, ":") {
		return image, nil
	}
	return image + ":latest", nil
}
