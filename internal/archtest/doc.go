// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the law of imports: its test reads every file of the
// module and fails when one reaches where its layer must not.
// docs/architecture.md draws the layers.
package archtest
