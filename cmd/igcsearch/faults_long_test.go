//go:build faults

package main

// longFaults is the long form of the tests of faults, of make faults.
const longFaults = true
