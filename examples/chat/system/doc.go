// Package system starts the chat's processes and does to them what a person asks for: it kills, freezes, thaws and starts
// them, watches them, and tells what happened.
//
// It is the stage, not the play: the chat does not know of it, and nothing goes through it but the picture and the buttons.
// It runs in the program that the person started, and when that ends, however it ends, so does everything else.
package system
