// SPDX-License-Identifier: Apache-2.0

package main

// The monitor is C, compiled into this executable: it takes over in a
// constructor, before Go's runtime exists, so that a pod costs some ten pages
// and not a heap, a scheduler and its threads.

// #cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra
import "C"
