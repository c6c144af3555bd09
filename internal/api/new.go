// SPDX-License-Identifier: Apache-2.0

package api

import "k8s.io/apimachinery/pkg/runtime"

// New returns an empty object of Go type T, for Kind.New and Version.New.
func New[T any, P interface {
	*T
	Object
}]() Object {
	return P(new(T))
}

// NewList returns an empty list of Go type T, for Kind.NewList and
// Version.NewList.
func NewList[T any, P interface {
	*T
	runtime.Object
}]() runtime.Object {
	return P(new(T))
}
