//! Chord: identifiers on a circle, each key on its successor.
