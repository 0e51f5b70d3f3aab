//go:build !linux

package execwork

// KeepCommand is what [Keep] is called for.
const KeepCommand = "__keep"

// Keep does nothing on this system.
func Keep() int { return 2 }

func newLauncher() launcher { return direct{} }
