// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/util/workqueue"

	"kaji/internal/client"
	"kaji/internal/kubelet/podspec"
)

// ManagerConfig is what a Manager needs.
type ManagerConfig struct {
	Client client.Interface
	// Pod returns what the API server has of a pod, by the node's identity of
	// it (podspec.UID); nil where it has nothing.
	Pod    func(types.UID) *corev1.Pod
	Logger *slog.Logger
	// Changed is told of each status that a pod has anew, and whether it is the first;
	// nil for nobody. It must not wait, nor ask the Manager.
	Changed func(pod *corev1.Pod, s corev1.PodStatus, first bool)
	// Took is told how long a status waited until it was written; nil for nobody.
	Took func(time.Duration)
	// Workers write at the same time; zero means 4.
	Workers int
}

// Manager keeps the status of each pod and writes it to the API server. Its
// methods may be called at any time from anywhere.
type Manager struct {
	cfg   ManagerConfig
	queue workqueue.TypedRateLimitingInterface[types.UID]
	mu    struct {
		sync.Mutex
		entries map[types.UID]*entry
	}
}

type entry struct {
	status corev1.PodStatus
	// running says that containers may be running: a final phase is held back.
	running bool
	// deletable says that nothing of the pod is left on the node.
	deletable bool
	// since is when the status became another than was written, zero where it did not.
	since time.Time
	// written is the API server's answer to the last write.
	written *corev1.Pod
}

// NewManager returns a manager; Run makes it write.
func NewManager(cfg ManagerConfig) *Manager {
	if cfg.Workers == 0 {
		cfg.Workers = 4
	}
	m := &Manager{cfg: cfg, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](50*time.Millisecond, 30*time.Second))}
	m.mu.entries = map[types.UID]*entry{}
	return m
}

// Run writes statuses until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range m.cfg.Workers {
		workers.Go(func() {
			for {
				uid, stopped := m.queue.Get()
				if stopped {
					return
				}
				m.write(ctx, uid)
				m.queue.Done(uid)
			}
		})
	}
	<-ctx.Done()
	m.queue.ShutDown()
	workers.Wait()
	return nil
}

// Get returns the newest status of a pod.
func (m *Manager) Get(uid types.UID) (corev1.PodStatus, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.mu.entries[uid]; ok {
		return e.status, true
	}
	return corev1.PodStatus{}, false
}

// Set records the status of a pod and writes it soon. running says whether
// containers of the pod may still run.
func (m *Manager) Set(pod *corev1.Pod, s corev1.PodStatus, running bool) {
	uid := podspec.UID(pod)
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.mu.entries[uid]
	old, first := &pod.Status, e == nil
	if first {
		e = &entry{running: true}
		m.mu.entries[uid] = e
	} else {
		old = &e.status
	}
	settle(&s, old)
	if reflect.DeepEqual(s, e.status) && e.running == running {
		return
	}
	e.status, e.running = s, running
	if e.since.IsZero() {
		e.since = time.Now()
	}
	if m.cfg.Changed != nil {
		m.cfg.Changed(pod, s, first)
	}
	m.queue.Add(uid)
}

// settle carries over what does not change and gives conditions their times.
func settle(s, old *corev1.PodStatus) {
	at := metav1.NewTime(time.Now().Truncate(time.Second))
	if s.StartTime == nil {
		s.StartTime = &at
		if old.StartTime != nil && !old.StartTime.IsZero() {
			s.StartTime = old.StartTime
		}
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		before := Condition(old.Conditions, c.Type)
		switch {
		case before != nil && before.Status == c.Status && !before.LastTransitionTime.IsZero():
			c.LastTransitionTime = before.LastTransitionTime
		case c.LastTransitionTime.IsZero() || owned(c.Type):
			c.LastTransitionTime = at
		}
	}
	truncate(s)
}

// truncate cuts times to what the API carries, so that a status compares equal
// to what comes back.
func truncate(s *corev1.PodStatus) {
	cut := func(t *metav1.Time) {
		if !t.IsZero() {
			*t = metav1.NewTime(t.Truncate(time.Second))
		}
	}
	state := func(st *corev1.ContainerState) {
		if st.Running != nil {
			running := *st.Running
			cut(&running.StartedAt)
			st.Running = &running
		}
		if st.Terminated != nil {
			ended := *st.Terminated
			cut(&ended.StartedAt)
			cut(&ended.FinishedAt)
			st.Terminated = &ended
		}
	}
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			state(&list[i].State)
			state(&list[i].LastTerminationState)
		}
	}
}

// Finish records that no container of the pod runs or will run: containers
// whose end nobody saw are shown as ended, and a final phase may be written.
func (m *Manager) Finish(pod *corev1.Pod) {
	uid := podspec.UID(pod)
	s, ok := m.Get(uid)
	if !ok {
		s = *pod.Status.DeepCopy()
	}
	s = *s.DeepCopy()
	if everInitialized(pod, &s) {
		lose(s.ContainerStatuses)
	}
	lose(begun(s.InitContainerStatuses))
	if !final(s.Phase) {
		s.Phase = corev1.PodFailed
	}
	m.Set(pod, s, false)
}

// Deletable records that nothing of the pod is left on the node; if its
// deletion was asked for, it is deleted once its status is written.
func (m *Manager) Deletable(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.mu.entries[uid]
	if e == nil {
		e = &entry{}
		m.mu.entries[uid] = e
	}
	e.deletable = true
	m.queue.Add(uid)
}

// Rewrite compares a pod's status with the API server's again: there is another
// object to write it to.
func (m *Manager) Rewrite(uid types.UID) { m.queue.Add(uid) }

// Seen compares what the API server has of a pod with what is known of it: who
// takes a node for lost calls its pods not ready, and nobody else takes that back.
func (m *Manager) Seen(pod *corev1.Pod) {
	uid := podspec.UID(pod)
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.mu.entries[uid]
	if e == nil || e.written != nil && newer(e.written, pod) {
		return
	}
	for i := range e.status.Conditions {
		c := &e.status.Conditions[i]
		if told := Condition(pod.Status.Conditions, c.Type); owned(c.Type) && (told == nil || told.Status != c.Status) {
			m.queue.Add(uid)
			return
		}
	}
	if pod.Status.Phase != e.status.Phase || len(pod.Status.ContainerStatuses) != len(e.status.ContainerStatuses) || len(pod.Status.PodIPs) != len(e.status.PodIPs) {
		m.queue.Add(uid)
	}
}

// Forget drops what is known of a pod that the API server no longer has.
func (m *Manager) Forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.entries, uid)
	m.queue.Forget(uid)
}

func (m *Manager) write(ctx context.Context, uid types.UID) {
	m.mu.Lock()
	e := m.mu.entries[uid]
	if e == nil {
		m.mu.Unlock()
		return
	}
	s, running, deletable, written := e.status, e.running, e.deletable, e.written
	m.mu.Unlock()

	pod := m.cfg.Pod(uid)
	if pod == nil {
		return // gone; Forget follows
	}
	if written != nil && written.UID == pod.UID && newer(written, pod) {
		pod = written
	}
	answer, err := m.patch(ctx, pod, merge(pod, s, running))
	if err == nil && deletable && pod.DeletionTimestamp != nil && !podspec.Mirror(pod) {
		err = m.remove(ctx, pod)
	}
	if apierrors.IsNotFound(err) {
		err = nil
	}
	if err != nil {
		if ctx.Err() == nil {
			m.cfg.Logger.Warn("pod status was not written", "pod", pod.Namespace+"/"+pod.Name, "err", err)
			m.queue.AddRateLimited(uid)
		}
		return
	}
	m.queue.Forget(uid)
	m.mu.Lock()
	if e := m.mu.entries[uid]; e != nil && answer != nil {
		e.written = answer
		if m.cfg.Took != nil && !e.since.IsZero() {
			m.cfg.Took(time.Since(e.since))
		}
		e.since = time.Time{}
	}
	m.mu.Unlock()
}

func newer(a, b *corev1.Pod) bool {
	left, err := strconv.ParseUint(a.ResourceVersion, 10, 64)
	if err != nil {
		return false
	}
	right, err := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return err == nil && left > right
}

// merge puts the conditions of others beside the agent's own, and holds a
// final phase back while containers may run.
func merge(pod *corev1.Pod, s corev1.PodStatus, running bool) corev1.PodStatus {
	s = *s.DeepCopy()
	old := &pod.Status
	var kept []corev1.PodCondition
	for _, c := range old.Conditions {
		if !owned(c.Type) && (c.Type != corev1.DisruptionTarget || Condition(s.Conditions, c.Type) == nil) {
			kept = append(kept, c)
		}
	}
	turning := final(s.Phase) && !final(old.Phase)
	for _, c := range s.Conditions {
		switch {
		case c.Type == corev1.DisruptionTarget:
			if !turning || !running {
				kept = append(kept, c)
			}
		case owned(c.Type):
			kept = append(kept, c)
		}
	}
	s.Conditions = kept
	s.QOSClass = old.QOSClass
	if s.QOSClass == "" {
		s.QOSClass = podspec.QOS(pod)
	}
	if final(old.Phase) {
		s.Phase = old.Phase
	}
	if turning && running {
		s.Phase, s.Reason, s.Message = old.Phase, old.Reason, old.Message
	}
	if final(s.Phase) {
		reason := "PodFailed"
		if s.Phase == corev1.PodSucceeded {
			reason = "PodCompleted"
		}
		for _, t := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
			if c := Condition(s.Conditions, t); c != nil {
				if c.Status != corev1.ConditionFalse {
					c.LastTransitionTime = now()
				}
				c.Status, c.Reason, c.Message = corev1.ConditionFalse, reason, ""
			}
		}
	}
	return s
}

// patch writes what differs; it returns nil, nil where nothing does.
func (m *Manager) patch(ctx context.Context, pod *corev1.Pod, s corev1.PodStatus) (*corev1.Pod, error) {
	type identity struct {
		UID types.UID `json:"uid"`
	}
	type shape struct {
		Metadata identity         `json:"metadata"`
		Status   corev1.PodStatus `json:"status"`
	}
	before, err := json.Marshal(shape{Status: pod.Status})
	if err != nil {
		return nil, fmt.Errorf("marshal the status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	after, err := json.Marshal(shape{Metadata: identity{pod.UID}, Status: s})
	if err != nil {
		return nil, fmt.Errorf("marshal the status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	data, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("patch the status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if slices.Equal(data, []byte(fmt.Sprintf(`{"metadata":{"uid":%q}}`, pod.UID))) {
		return nil, nil
	}
	return client.For[*corev1.Pod](m.cfg.Client).Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, data, "status")
}

func (m *Manager) remove(ctx context.Context, pod *corev1.Pod) error {
	zero := int64(0)
	err := client.For[*corev1.Pod](m.cfg.Client).Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if apierrors.IsConflict(err) { // another pod has the name by now
		return nil
	}
	return err
}
