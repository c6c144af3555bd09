// SPDX-License-Identifier: Apache-2.0

// Package guide runs the documentation: its test takes the console blocks out of
// docs/guide, chapter by chapter, types every command into a shell on a machine of
// its own, and compares what it prints with what the page shows. So a page that
// lies fails the build.
//
// In a console block a line that starts with "$ " is a command, "> " continues it,
// and what follows is its output. "…" stands for anything within a line, a
// line of nothing else for any lines; ages, addresses, times and random suffixes match
// others of their sort. After a command that asks for a terminal (-it), a line that
// starts with "/ # " is typed at the container's prompt.
package guide
