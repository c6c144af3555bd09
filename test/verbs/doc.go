// SPDX-License-Identifier: Apache-2.0

// Package verbs tests what the verbs of the command line promise about a whole
// machine: up, down, upgrade, backup and restore, on machines of their own (package
// machine), with real pods.
package verbs
