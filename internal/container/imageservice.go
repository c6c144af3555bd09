// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/image"
)

// ListImages lists all images, or the one that the filter names.
func (r *Runtime) ListImages(_ context.Context, req *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	out := &runtimeapi.ListImagesResponse{}
	if name := req.GetFilter().GetImage().GetImage(); name != "" {
		if img, err := r.images.Get(name); err == nil {
			out.Images = append(out.Images, imageMessage(img))
		}
		return out, nil
	}
	for _, img := range r.images.List() {
		out.Images = append(out.Images, imageMessage(img))
	}
	return out, nil
}

func imageMessage(img *image.Image) *runtimeapi.Image {
	out := &runtimeapi.Image{
		Id: img.ID, RepoTags: img.RepoTags, RepoDigests: img.RepoDigests, Size: uint64(img.Size), Pinned: img.Pinned,
		Spec: &runtimeapi.ImageSpec{Image: ""},
	}
	user, _, _ := strings.Cut(img.Config.Config.User, ":")
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		out.Uid = &runtimeapi.Int64Value{Value: uid}
	} else if user == "" {
		out.Uid = &runtimeapi.Int64Value{Value: 0}
	} else {
		out.Username = user
	}
	return out
}

// ImageStatus tells about one image; the answer is empty when there is none.
func (r *Runtime) ImageStatus(_ context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	img, err := r.images.Get(req.GetImage().GetImage())
	if errors.Is(err, image.ErrNotFound) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.ImageStatusResponse{Image: imageMessage(img)}
	if req.GetVerbose() {
		info, err := json.Marshal(map[string]any{"imageSpec": img.Config})
		if err != nil {
			return nil, err
		}
		out.Info = map[string]string{"info": string(info)}
	}
	return out, nil
}

// PullImage pulls an image and returns its id.
func (r *Runtime) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	auth, err := credentials(req.GetAuth())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	img, err := r.images.Pull(ctx, req.GetImage().GetImage(), auth)
	if err != nil {
		return nil, pullStatus(err)
	}
	return &runtimeapi.PullImageResponse{ImageRef: img.ID}, nil
}

// credentials reads those that the kubelet found: in parts, or joined as docker
// keeps them.
func credentials(a *runtimeapi.AuthConfig) (image.Auth, error) {
	auth := image.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
	}
	if auth == (image.Auth{}) && a.GetAuth() != "" {
		raw, err := base64.StdEncoding.DecodeString(a.GetAuth())
		if err != nil {
			return auth, errors.New("auth is not base64")
		}
		user, password, ok := strings.Cut(string(raw), ":")
		if !ok {
			return auth, errors.New("invalid decoded auth")
		}
		auth.Username, auth.Password = user, strings.Trim(password, "\x00")
	}
	return auth, nil
}

// pullStatus gives a failed pull the code by which the kubelet sorts it.
func pullStatus(err error) error {
	code := codes.Unknown
	if failed, ok := errors.AsType[*image.PullError](err); ok {
		switch failed.Reason {
		case image.PullNotFound:
			code = codes.NotFound
		case image.PullDenied:
			code = codes.Unauthenticated
		case image.PullMalformed:
			code = codes.InvalidArgument
		case image.PullUnreachable:
			code = codes.Unavailable
		}
	}
	return status.Error(code, err.Error())
}

// RemoveImage removes an image with all its names. Containers made from it run on.
func (r *Runtime) RemoveImage(_ context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	return &runtimeapi.RemoveImageResponse{}, r.images.Remove(req.GetImage().GetImage())
}

// ImageFsInfo tells what images and containers take on their file system.
func (r *Runtime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	used, err := r.images.Usage()
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixNano()
	usage := func(dir string, bytes, inodes uint64) []*runtimeapi.FilesystemUsage {
		return []*runtimeapi.FilesystemUsage{{
			Timestamp: now, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: dir}, UsedBytes: value(bytes), InodesUsed: value(inodes),
		}}
	}
	var bytes, inodes uint64
	r.mu.RLock()
	containers := make([]*container, 0, len(r.containers))
	for _, c := range r.containers {
		containers = append(containers, c)
	}
	r.mu.RUnlock()
	for _, c := range containers {
		_, b, n := c.fsUsage.measure(filepath.Join(r.containerRoot(c.record.Load().ID), "upper"))
		bytes, inodes = bytes+b, inodes+n
	}
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     usage(r.images.Root(), uint64(used.Bytes), uint64(used.Inodes)),
		ContainerFilesystems: usage(r.cfg.Root, bytes, inodes),
	}, nil
}
