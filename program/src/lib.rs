//! Placeholder of the skeleton; its first real commit replaces this line.
