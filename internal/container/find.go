// SPDX-License-Identifier: Apache-2.0

package container

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// find looks an object up by its id, which may be shortened as long as it fits
// one object only.
func find[T any](objects map[string]*T, id, kind string) (*T, error) {
	if id == "" {
		return nil, status.Errorf(codes.InvalidArgument, "%s id must not be empty", kind)
	}
	if o, ok := objects[id]; ok {
		return o, nil
	}
	var found *T
	for full, o := range objects {
		if strings.HasPrefix(full, id) {
			if found != nil {
				return nil, status.Errorf(codes.NotFound, "%s id %q is ambiguous", kind, id)
			}
			found = o
		}
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "an error occurred when try to find %s %q: not found", kind, id)
	}
	return found, nil
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
