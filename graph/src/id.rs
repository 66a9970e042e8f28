//! Typed indices. A `u32` newtype per kind of thing, printed with its own sigil (`%7`, `v3`, `#2`), the arena that
//! hands them out and the side table that annotates them. Not pointers: ids print, compare, serialize and stay
//! valid when a pass copies the arena.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// What an arena and a side table need of an id.
pub trait Id: Copy + Eq + std::hash::Hash + std::fmt::Debug {
    /// The id of the `index`-th thing.
    fn new(index: usize) -> Self;
    /// Which thing this is, counted from zero.
    fn index(self) -> usize;
}

/// Declares an id type: `id! { /// A node. NodeId, "%" }`.
#[macro_export]
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $sigil:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u32);
        impl $crate::id::Id for $name {
            fn new(index: usize) -> Self { Self(u32::try_from(index).expect("fewer than 2^32 of a kind")) }
            fn index(self) -> usize { self.0 as usize }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, concat!($sigil, "{}"), self.0) }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { std::fmt::Display::fmt(self, f) }
        }
    };
}

/// Things of one kind, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Arena<I, T> {
    items: Vec<T>,
    #[serde(skip)]
    of: PhantomData<I>,
}

impl<I, T> Default for Arena<I, T> {
    fn default() -> Self {
        Self { items: Vec::new(), of: PhantomData }
    }
}

impl<I: Id, T> Arena<I, T> {
    /// Appends `item` and names it.
    pub fn push(&mut self, item: T) -> I {
        self.items.push(item);
        I::new(self.items.len() - 1)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// The item called `id`, if there is one.
    pub fn get(&self, id: I) -> Option<&T> {
        self.items.get(id.index())
    }
    /// Every id, in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = I> + ExactSizeIterator + use<I, T> {
        (0..self.items.len()).map(I::new)
    }
    /// Every id with its item, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (I, &T)> + ExactSizeIterator {
        self.items.iter().enumerate().map(|(i, t)| (I::new(i), t))
    }
    /// The items alone.
    pub fn values(&self) -> &[T] {
        &self.items
    }
}

impl<I: Id, T> Index<I> for Arena<I, T> {
    type Output = T;
    fn index(&self, id: I) -> &T {
        &self.items[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for Arena<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.items[id.index()]
    }
}

impl<I, T> FromIterator<T> for Arena<I, T> {
    fn from_iter<It: IntoIterator<Item = T>>(items: It) -> Self {
        Self { items: items.into_iter().collect(), of: PhantomData }
    }
}

/// What one pass learns of things: a value per id, dense, dropped with the pass. Never a field of the thing itself.
#[derive(Clone, Debug)]
pub struct Side<I, T> {
    items: Vec<T>,
    of: PhantomData<I>,
}

impl<I: Id, T: Clone> Side<I, T> {
    /// A table for `len` things, each `value`.
    pub fn filled(len: usize, value: T) -> Self {
        Self { items: vec![value; len], of: PhantomData }
    }
}

impl<I: Id, T> Index<I> for Side<I, T> {
    type Output = T;
    fn index(&self, id: I) -> &T {
        &self.items[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for Side<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.items[id.index()]
    }
}
