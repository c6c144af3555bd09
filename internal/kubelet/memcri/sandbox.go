// SPDX-License-Identifier: Apache-2.0

package memcri

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox implements cri.Runtime.
func (r *Runtime) RunPodSandbox(_ context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.id("sandbox")
	r.record("run sandbox %s", req.Config.GetMetadata().GetName())
	r.mu.sandboxes[id] = &sandbox{config: req.Config, handler: req.RuntimeHandler, status: &runtimeapi.PodSandboxStatus{
		Id: id, Metadata: req.Config.Metadata, State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: time.Now().UnixNano(),
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.244.%d.%d", r.mu.next/250, r.mu.next%250+2)},
		Labels:  req.Config.Labels, Annotations: req.Config.Annotations, RuntimeHandler: req.RuntimeHandler,
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: req.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox implements cri.Runtime.
func (r *Runtime) StopPodSandbox(_ context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.mu.sandboxes[req.PodSandboxId]; ok && s.status.State == runtimeapi.PodSandboxState_SANDBOX_READY {
		r.record("stop sandbox %s", s.config.GetMetadata().GetName())
		for _, c := range r.mu.containers {
			if c.sandbox == req.PodSandboxId {
				r.end(c, 137, "Error")
			}
		}
		s.status.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		r.tell(req.PodSandboxId, req.PodSandboxId, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox implements cri.Runtime.
func (r *Runtime) RemovePodSandbox(_ context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.mu.sandboxes[req.PodSandboxId]; ok {
		r.record("remove sandbox %s", s.config.GetMetadata().GetName())
		for id, c := range r.mu.containers {
			if c.sandbox == req.PodSandboxId {
				r.end(c, 137, "Error")
				delete(r.mu.containers, id)
			}
		}
		r.tell(req.PodSandboxId, req.PodSandboxId, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
		delete(r.mu.sandboxes, req.PodSandboxId)
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus implements cri.Runtime.
func (r *Runtime) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.mu.sandboxes[req.PodSandboxId]
	if !ok {
		return nil, notFound("sandbox", req.PodSandboxId)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: proto.Clone(s.status).(*runtimeapi.PodSandboxStatus)}, nil
}

// ListPodSandbox implements cri.Runtime.
func (r *Runtime) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := &runtimeapi.ListPodSandboxResponse{}
	for id, s := range r.mu.sandboxes {
		f := req.GetFilter()
		if f != nil && (f.Id != "" && f.Id != id || f.State != nil && f.State.State != s.status.State || !matches(f.LabelSelector, s.status.Labels)) {
			continue
		}
		answer.Items = append(answer.Items, &runtimeapi.PodSandbox{Id: id, Metadata: s.status.Metadata, State: s.status.State,
			CreatedAt: s.status.CreatedAt, Labels: s.status.Labels, Annotations: s.status.Annotations, RuntimeHandler: s.handler})
	}
	return answer, nil
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// PodSandboxStats implements cri.Runtime.
func (r *Runtime) PodSandboxStats(_ context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.mu.sandboxes[req.PodSandboxId]
	if !ok {
		return nil, notFound("sandbox", req.PodSandboxId)
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: s.stats()}, nil
}

func (s *sandbox) stats() *runtimeapi.PodSandboxStats {
	return &runtimeapi.PodSandboxStats{Attributes: &runtimeapi.PodSandboxAttributes{
		Id: s.status.Id, Metadata: s.status.Metadata, Labels: s.status.Labels, Annotations: s.status.Annotations}}
}

// ListPodSandboxStats implements cri.Runtime.
func (r *Runtime) ListPodSandboxStats(context.Context, *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := &runtimeapi.ListPodSandboxStatsResponse{}
	for _, s := range r.mu.sandboxes {
		answer.Stats = append(answer.Stats, s.stats())
	}
	return answer, nil
}

// UpdatePodSandboxResources implements cri.Runtime.
func (r *Runtime) UpdatePodSandboxResources(context.Context, *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}

// PortForward implements cri.Runtime.
func (r *Runtime) PortForward(context.Context, *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return &runtimeapi.PortForwardResponse{Url: "http://127.0.0.1:1/portforward"}, nil
}
